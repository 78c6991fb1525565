// Operators on tensors of the emulated device: those of torch run as its CPU's, on tensors of the CPU that share the
// memory; what they return gets memory of the device. Ours do not come here: torch.library has their kernels for CUDA.
#include <ATen/EmptyTensor.h>
#include <ATen/native/TensorFactories.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "machine/memory.hpp"
#include "machine/stream.hpp"

namespace {

using c10::IValue;
using torch::jit::Stack;

c10::Allocator* allocator() { return c10::GetAllocator(c10::kCUDA); }

at::Tensor tensor_on(c10::DispatchKey key, const c10::Storage& storage, const at::Tensor& like) {
    auto tensor =
        at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), c10::DispatchKeySet(key), like.dtype());
    auto* const impl = tensor.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(like.sym_sizes(), like.sym_strides(), like.sym_storage_offset());
    if (like.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    if (like.is_neg()) tensor._set_neg(true);
    return tensor;
}

bool is_on_device(const at::Tensor& t) { return t.defined() && t.device().is_cuda(); }

at::Tensor copied_to_device(const at::Tensor& cpu) {
    const std::size_t n_bytes = cpu.storage().nbytes();
    c10::DataPtr data = allocator()->allocate(n_bytes);
    if (n_bytes > 0) {
        std::memcpy(data.get(), cpu.storage().data(), n_bytes);
        emulation::mark_written(data.get(), n_bytes);
    }
    return tensor_on(c10::DispatchKey::CUDA,
                     c10::Storage(c10::Storage::use_byte_size_t(), n_bytes, std::move(data), allocator(), true), cpu);
}

// The tensors of the CPU that stand for those of the device in one call.
class Aliases {
  public:
    at::Tensor on_cpu(const at::Tensor& t) {
        if (!is_on_device(t)) return t;
        for (const Pair& p : pairs_)
            if (p.device.is_same(t)) return p.cpu;
        const c10::Storage& storage = t.storage();
        c10::Storage& alias = storages_[storage.unsafeGetStorageImpl()];
        if (!alias) {
            void* const data = storage.mutable_data();
            alias = c10::Storage(
                c10::Storage::use_byte_size_t(), storage.nbytes(),
                c10::DataPtr(data, data, [](void*) {}, c10::Device(c10::kCPU)), c10::GetCPUAllocator(), true);
        }
        pairs_.push_back({t, tensor_on(c10::DispatchKey::CPU, alias, t)});
        return pairs_.back().cpu;
    }

    at::Tensor on_device(const at::Tensor& t) const {
        if (!t.defined()) return t;
        for (const Pair& p : pairs_)
            if (p.cpu.is_same(t)) return p.device;
        for (const Pair& p : pairs_)
            if (p.cpu.storage().unsafeGetStorageImpl() == t.storage().unsafeGetStorageImpl())
                return tensor_on(c10::DispatchKey::CUDA, p.device.storage(), t);
        return copied_to_device(t);
    }

    // Gives tensors that the operator has resized their new memory.
    void resize() const {
        for (const Pair& p : pairs_) {
            if (p.cpu.sizes() == p.device.sizes() && p.cpu.strides() == p.device.strides()) continue;
            const at::Tensor resized = copied_to_device(p.cpu);
            auto* const impl = p.device.unsafeGetTensorImpl();
            impl->set_storage_keep_dtype(resized.storage());
            impl->set_sizes_and_strides(resized.sizes(), resized.strides(), resized.storage_offset());
        }
    }

  private:
    struct Pair {
        at::Tensor device, cpu;
    };
    std::vector<Pair> pairs_;
    std::unordered_map<const c10::StorageImpl*, c10::Storage> storages_;
};

// The value with f(tensor) in place of every tensor.
template <class F>
IValue map_tensors(const IValue& value, const F& f) {
    if (value.isTensor()) return f(value.toTensor());
    if (value.isTensorList()) {
        c10::List<at::Tensor> out;
        for (const at::Tensor& t : value.toTensorVector()) out.push_back(f(t));
        return out;
    }
    if (value.isOptionalTensorList()) {
        c10::List<std::optional<at::Tensor>> out;
        for (const std::optional<at::Tensor>& t : value.toOptionalTensorVector())
            out.push_back(t ? std::optional<at::Tensor>(f(*t)) : std::nullopt);
        return out;
    }
    return value;
}

void mark_written(const at::Tensor& t) {
    if (is_on_device(t) && t.numel() > 0)
        emulation::mark_written(t.data_ptr(), at::detail::computeStorageNbytes(t.sizes(), t.strides(), t.itemsize()));
}

void run_on_cpu(const c10::OperatorHandle& op, Stack* stack) {
    const auto& schema = op.schema();
    const std::size_t first = stack->size() - schema.arguments().size();
    Aliases aliases;
    std::vector<at::Tensor> written;
    for (std::size_t k = first; k < stack->size(); ++k) {
        IValue& value = (*stack)[k];
        const auto* const alias = schema.arguments()[k - first].alias_info();
        if (alias && alias->isWrite()) map_tensors(value, [&](const at::Tensor& t) { return written.push_back(t), t; });
        if (value.isDevice() && value.toDevice().is_cuda())
            value = c10::Device(c10::kCPU);
        else
            value = map_tensors(value, [&](const at::Tensor& t) { return aliases.on_cpu(t); });
    }
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    aliases.resize();
    for (const at::Tensor& t : written) mark_written(t);
    for (std::size_t k = stack->size() - schema.returns().size(); k < stack->size(); ++k)
        (*stack)[k] = map_tensors((*stack)[k], [&](const at::Tensor& t) {
            for (const at::Tensor& given : written)
                if (given.defined() && given.is_same(t)) return t;  // of the CPU: copies to it come here too
            return aliases.on_device(t);
        });
}

// Results of a step that is repeated go to the memory that those of the capture have.
void copy_results(const Stack& from, const Stack& to) {
    std::vector<at::Tensor> sources, targets;
    for (const IValue& value : from) map_tensors(value, [&](const at::Tensor& t) { return sources.push_back(t), t; });
    for (const IValue& value : to) map_tensors(value, [&](const at::Tensor& t) { return targets.push_back(t), t; });
    for (std::size_t k = 0; k < targets.size(); ++k) {
        if (!targets[k].defined() || targets[k].data_ptr() == sources[k].data_ptr()) continue;
        std::memcpy(targets[k].storage().mutable_data(), sources[k].storage().data(), targets[k].storage().nbytes());
        emulation::mark_written(targets[k].storage().data(), targets[k].storage().nbytes());
    }
}

// By a mask: the size of the result is known when the device has counted.
bool has_mask(const IValue& indices) {
    for (const IValue& index : indices.toListRef())
        if (index.isTensor() &&
            (index.toTensor().scalar_type() == at::kBool || index.toTensor().scalar_type() == at::kByte))
            return true;
    return false;
}

// Whether the host waits for the result, which a capture does not allow.
bool waits_for_device(const c10::OperatorHandle& op, const Stack& stack) {
    static constexpr std::array kNames = {"aten::_local_scalar_dense", "aten::nonzero",  "aten::equal",
                                          "aten::masked_select",       "aten::_unique2", "aten::unique_consecutive",
                                          "aten::unique_dim",          "aten::bincount"};
    static constexpr std::array kPut = {"aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};
    const std::string& name = op.schema().name();
    const IValue* const arguments = stack.data() + (stack.size() - op.schema().arguments().size());
    const auto is_in = [&](const auto& names) { return std::find(names.begin(), names.end(), name) != names.end(); };
    if (is_in(kNames)) return true;
    if (name == "aten::index") return has_mask(arguments[1]);
    if (is_in(kPut)) {  // a number is put by masked_fill
        const at::Tensor& value = arguments[2].toTensor();
        return has_mask(arguments[1]) && !(value.numel() == 1 && value.device().is_cpu());
    }
    if (name == "aten::repeat_interleave") return arguments[1].isNone();  // the size of the result
    return name == "aten::copy_" && arguments[0].toTensor().device() != arguments[1].toTensor().device();
}

void run(const c10::OperatorHandle& op, Stack* stack) {
    if (!emulation::is_capturing()) return run_on_cpu(op, stack);
    TORCH_CHECK(!waits_for_device(op, *stack),
                "CUDA error: operation not permitted when stream is capturing (emulated): ", op.schema().name());
    const auto n = [](std::size_t size) { return static_cast<std::ptrdiff_t>(size); };
    const Stack arguments(stack->end() - n(op.schema().arguments().size()), stack->end());
    run_on_cpu(op, stack);
    const Stack results(stack->end() - n(op.schema().returns().size()), stack->end());
    emulation::record([op, arguments, results] {
        Stack again = arguments;
        run_on_cpu(op, &again);
        copy_results(again, results);
    });
}

at::ScalarType dtype_of(std::optional<at::ScalarType> dtype) {
    return dtype.value_or(at::get_default_dtype_as_scalartype());
}

at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
    return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), allocator(),
                                     c10::DispatchKeySet(c10::DispatchKey::CUDA), dtype_of(dtype), format);
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<c10::Device>, std::optional<bool>) {
    return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                             allocator(), c10::DispatchKeySet(c10::DispatchKey::CUDA), dtype_of(dtype));
}

// Zeros without memory, of forward mode.
at::Tensor zeros_without_memory(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                                std::optional<at::Layout>, std::optional<c10::Device>, std::optional<bool>) {
    auto none = at::native::ZeroTensorAllocator(c10::Device(c10::kCUDA, 0));
    const auto keys = c10::DispatchKeySet(c10::DispatchKey::CUDA) | c10::DispatchKeySet(c10::DispatchKey::ZeroTensor);
    return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &none, keys, dtype_of(dtype), std::nullopt);
}

at::Tensor& set_part_of_storage(at::Tensor& self, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size,
                                c10::SymIntArrayRef stride) {
    auto* const impl = self.unsafeGetTensorImpl();
    impl->set_storage_keep_dtype(std::move(source));
    std::vector<c10::SymInt> strides(stride.begin(), stride.end());
    if (stride.size() != size.size()) {
        strides.assign(size.size(), 1);
        for (std::size_t k = size.size(); k-- > 1;) strides[k - 1] = strides[k] * size[k];
    }
    impl->set_sizes_and_strides(size, strides, offset);
    return self;
}

at::Tensor& set_storage(at::Tensor& self, c10::Storage source) {
    const c10::SymInt size(static_cast<std::int64_t>(source.nbytes() / self.itemsize())), one(1);
    return set_part_of_storage(self, std::move(source), 0, {size}, {one});
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
    m.impl("empty.memory_format", &empty);
    m.impl("empty_strided", &empty_strided);
    m.impl("set_.source_Storage", &set_storage);
    m.impl("set_.source_Storage_storage_offset", &set_part_of_storage);
    m.impl("_efficientzerotensor", &zeros_without_memory);
    // Their composite kernels would come before the fallback.
    for (const char* name : {"copy_", "equal"}) m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run>());
}

}  // namespace
