// Parallelisation: one block of threads works on several rows; within a row the threads lie along the features, so a
// gathered row is one coalesced read. A row is summed by one thread per feature in edge order: no atomics, the same
// bits on every run. out_weight gives each edge one warp, whose lanes combine in a fixed tree. The gradient of a
// maximum is summed like that of a sum, by value, over the edges that won.
// Memory traffic: as on the CPU, one gathered read per edge and feature. Sectors over that floor, counted without a
// GPU: 1.7 to 2.5. What is over it is read by all lanes of a warp at once, a sector for each edge and warp: where the
// row ends, index, number and weight of the edge; the first cache has them.
// Alternatives that lost: in the gradient of a maximum for values, features inside of edges, 3.1 times the floor
// instead of 1.3. Not tried: a split of long rows, wide loads.
#include "core/cuda.hpp"
#include "ops/scatter_add/math.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr std::int64_t kMaxBlocks = 65535;  // grids are strided: any number of rows fits

struct Shape {
    dim3 grid, block;
};

// Threads along x cover features (a power of two up to 128), along y rows.
Shape shape_for(std::int64_t rows, std::int64_t cols) {
    unsigned x = 1;
    while (x < cols && x < 128) x *= 2;
    const unsigned y = kThreads / x;
    const std::int64_t blocks = (rows + y - 1) / y;
    return {dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks)), dim3(x, y)};
}

MDGNN_HD inline std::int64_t first_row_of(unsigned block, unsigned dim, unsigned thread) {
    return static_cast<std::int64_t>(block) * dim + thread;
}

template <class T>
__global__ void sum_rows_kernel(Rows rows, Reduce reduce, Matrix<const T> x, const T* w, Matrix<const T> x2,
                                const T* w2, Matrix<T> out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t i = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); i < rows.n_rows; i += stride) {
        const T scale = row_scale<T>(rows, i, reduce);
        for (std::int64_t f = threadIdx.x; f < out.cols; f += blockDim.x) {
            T sum = 0;
            for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
                const std::int64_t j = entry(rows.index, k);
                if (x) sum += weight_of(w, rows, k) * x.row(j)[f];
                if (x2) sum += weight_of(w2, rows, k) * x2.row(j)[f];
            }
            out.row(i)[f] = scale * sum;
        }
    }
}

template <class T>
__global__ void sum_columns_kernel(Rows rows, Rows columns, Reduce reduce, Matrix<const T> g, const T* w,
                                   Matrix<T> out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t j = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); j < columns.n_rows; j += stride) {
        for (std::int64_t f = threadIdx.x; f < out.cols; f += blockDim.x) {
            T sum = 0;
            for (std::int64_t k = columns.row_ptr[j]; k < columns.row_ptr[j + 1]; ++k) {
                const std::int64_t i = entry(columns.index, k);
                sum += weight_of(w, columns, k) * row_scale<T>(rows, i, reduce) * g.row(i)[f];
            }
            out.row(j)[f] = sum;
        }
    }
}

// Values that belong to one edge each: row i writes the gradients of its own edges.
template <class T>
__global__ void spread_rows_kernel(Rows rows, Reduce reduce, Matrix<const T> g, const T* w, Matrix<T> out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t i = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); i < rows.n_rows; i += stride) {
        const T scale = row_scale<T>(rows, i, reduce);
        for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k)
            for (std::int64_t f = threadIdx.x; f < g.cols; f += blockDim.x)
                out.row(k)[f] = weight_of(w, rows, k) * scale * g.row(i)[f];
    }
}

// A warp walks the edges of a row; its lanes split the features. The tree of shuffles has a fixed shape. Block is
// (32, kThreads / 32): a warp shares one threadIdx.y, so its lanes never diverge before the shuffles.
template <class T>
__global__ void dot_rows_kernel(Rows rows, Reduce reduce, Matrix<const T> g, Matrix<const T> x, T* out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t i = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); i < rows.n_rows; i += stride) {
        const T scale = row_scale<T>(rows, i, reduce);
        for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
            const std::int64_t j = entry(rows.index, k);
            T sum = 0;
            for (std::int64_t f = threadIdx.x; f < g.cols; f += kWarp) sum += g.row(i)[f] * x.row(j)[f];
            for (int lane = kWarp / 2; lane > 0; lane /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lane);
            if (threadIdx.x == 0) out[entry(rows.edge, k)] = scale * sum;
        }
    }
}

template <class T>
__global__ void max_rows_kernel(Rows rows, Matrix<const T> x, const T* w, Matrix<T> out, std::int64_t* argmax) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t i = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); i < rows.n_rows; i += stride) {
        const std::int64_t first = rows.row_ptr[i], last = rows.row_ptr[i + 1];
        for (std::int64_t f = threadIdx.x; f < out.cols; f += blockDim.x) {
            T best = 0;
            std::int64_t winner = -1;
            for (std::int64_t k = first; k < last; ++k) {
                const T candidate = weight_of(w, rows, k) * x.row(entry(rows.index, k))[f];
                if (k == first || replaces_maximum(candidate, best)) best = candidate, winner = entry(rows.edge, k);
            }
            out.row(i)[f] = best;
            argmax[i * out.cols + f] = winner;
        }
    }
}

// columns.edge holds the numbers that argmax has.
template <class T>
__global__ void max_columns_kernel(Rows columns, Matrix<const T> g, const std::int64_t* argmax, const T* w,
                                   Matrix<T> out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t j = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); j < columns.n_rows; j += stride)
        for (std::int64_t f = threadIdx.x; f < out.cols; f += blockDim.x) {
            T sum = 0;
            for (std::int64_t k = columns.row_ptr[j]; k < columns.row_ptr[j + 1]; ++k) {
                const std::int64_t i = columns.index[k];
                if (argmax[i * g.cols + f] == columns.edge[k]) sum += weight_of(w, columns, k) * g.row(i)[f];
            }
            out.row(j)[f] = sum;
        }
}

template <class T>
__global__ void max_spread_kernel(Rows rows, Matrix<const T> g, const std::int64_t* argmax, const T* w, Matrix<T> out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t i = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); i < rows.n_rows; i += stride)
        for (std::int64_t f = threadIdx.x; f < g.cols; f += blockDim.x) {
            const std::int64_t largest = argmax[i * g.cols + f];
            const T grad = g.row(i)[f];
            for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k)
                out.row(k)[f] = k == largest ? weight_of(w, rows, k) * grad : T(0);
        }
}

// Blocks as those of dot_rows_kernel.
template <class T>
__global__ void max_dot_kernel(Rows rows, Matrix<const T> g, const std::int64_t* argmax, Matrix<const T> x, T* out) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
    for (std::int64_t i = first_row_of(blockIdx.x, blockDim.y, threadIdx.y); i < rows.n_rows; i += stride)
        for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
            const std::int64_t j = entry(rows.index, k), e = entry(rows.edge, k);
            T sum = 0;
            for (std::int64_t f = threadIdx.x; f < g.cols; f += kWarp)
                if (argmax[i * g.cols + f] == e) sum += g.row(i)[f] * x.row(j)[f];
            for (int lane = kWarp / 2; lane > 0; lane /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lane);
            if (threadIdx.x == 0) out[e] = sum;
        }
}

template <class T>
void sum_rows(const ScatterAdd<T>& op, Matrix<const T> x, const T* w, Matrix<const T> x2, const T* w2, Matrix<T> out,
              const Context& context) {
    if (op.rows.n_rows == 0 || out.cols == 0) return;
    const Shape s = shape_for(op.rows.n_rows, out.cols);
    sum_rows_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, op.reduce, x, w, x2, w2, out);
    check(cudaGetLastError(), "scatter_add: sum over rows");
}

template <class T>
void sum_columns(const ScatterAdd<T>& op, Matrix<const T> g, const T* w, Matrix<T> out, const Context& context) {
    const std::int64_t n = op.rows.index ? op.columns.n_rows : op.rows.n_rows;
    if (n == 0 || g.cols == 0) return;
    const Shape s = shape_for(n, g.cols);
    if (op.rows.index)
        sum_columns_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, op.columns, op.reduce, g, w, out);
    else
        spread_rows_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, op.reduce, g, w, out);
    check(cudaGetLastError(), "scatter_add: sum over columns");
}

// A warp for each row.
Shape shape_of_warps(std::int64_t rows) {
    const dim3 block(kWarp, kThreads / kWarp);
    const std::int64_t blocks = (rows + block.y - 1) / block.y;
    return {dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks)), block};
}

template <class T>
void dot_rows(const ScatterAdd<T>& op, Matrix<const T> g, Matrix<const T> x, T* out, const Context& context) {
    if (op.rows.n_rows == 0) return;
    const Shape s = shape_of_warps(op.rows.n_rows);
    dot_rows_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, op.reduce, g, x, out);
    check(cudaGetLastError(), "scatter_add: products along rows");
}

template <class T>
void max_rows(const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, const Context& context) {
    if (op.rows.n_rows == 0 || out.cols == 0) return;
    const Shape s = shape_for(op.rows.n_rows, out.cols);
    max_rows_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, op.values, op.weight, out, argmax);
    check(cudaGetLastError(), "scatter_add: maximum of rows");
}

template <class T>
void max_backward(const ScatterAdd<T>& op, Matrix<const T> grad, const std::int64_t* argmax, Matrix<T> out_values,
                  T* out_weight, const Context& context) {
    const std::int64_t n = op.rows.index ? op.columns.n_rows : op.rows.n_rows;
    if (out_values && n > 0 && grad.cols > 0) {
        const Shape s = shape_for(n, grad.cols);
        if (op.rows.index && !op.columns.edge)
            throw std::invalid_argument("scatter_add: max on CUDA needs columns with edges");
        if (op.rows.index)
            max_columns_kernel<T>
                <<<s.grid, s.block, 0, stream(context)>>>(op.columns, grad, argmax, op.weight, out_values);
        else
            max_spread_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, grad, argmax, op.weight, out_values);
        check(cudaGetLastError(), "scatter_add: gradient of the maximum for values");
    }
    if (out_weight && op.rows.n_rows > 0) {
        const Shape s = shape_of_warps(op.rows.n_rows);
        max_dot_kernel<T><<<s.grid, s.block, 0, stream(context)>>>(op.rows, grad, argmax, op.values, out_weight);
        check(cudaGetLastError(), "scatter_add: gradient of the maximum for weights");
    }
}

}  // namespace

template <class T>
void scatter_add(const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, const Context& context) {
    const DeviceGuard guard(context.device);
    if (op.reduce == Reduce::max) return max_rows(op, out, argmax, context);
    sum_rows<T>(op, op.values, op.weight, {}, nullptr, out, context);
}

template <class T>
void scatter_add_backward(const ScatterAdd<T>& op, Matrix<const T> grad, const std::int64_t* argmax,
                          Matrix<T> out_values, T* out_weight, const Context& context) {
    const DeviceGuard guard(context.device);
    if (op.reduce == Reduce::max) return max_backward(op, grad, argmax, out_values, out_weight, context);
    if (out_values) sum_columns(op, grad, op.weight, out_values, context);
    if (out_weight) dot_rows(op, grad, op.values, out_weight, context);
}

template <class T>
void scatter_add_double_backward(const ScatterAdd<T>& op, Matrix<const T> grad, Matrix<const T> grad2_values,
                                 const T* grad2_weight, Matrix<T> out_grad, Matrix<T> out_values, T* out_weight,
                                 const Context& context) {
    if (op.reduce == Reduce::max) throw std::invalid_argument("scatter_add: max has no second derivative");
    const DeviceGuard guard(context.device);
    const Matrix<const T> values = grad2_weight ? op.values : Matrix<const T>{};
    if (out_grad) sum_rows(op, grad2_values, op.weight, values, grad2_weight, out_grad, context);
    if (out_values) sum_columns(op, grad, grad2_weight, out_values, context);
    if (out_weight) dot_rows(op, grad, grad2_values, out_weight, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                         \
    template void scatter_add<T>(const ScatterAdd<T>&, Matrix<T>, std::int64_t*, const Context&);                    \
    template void scatter_add_backward<T>(const ScatterAdd<T>&, Matrix<const T>, const std::int64_t*, Matrix<T>, T*, \
                                          const Context&);                                                           \
    template void scatter_add_double_backward<T>(const ScatterAdd<T>&, Matrix<const T>, Matrix<const T>, const T*,   \
                                                 Matrix<T>, Matrix<T>, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
