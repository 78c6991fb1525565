#include "engine/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "engine/json.hpp"

namespace mdgnn::engine {
namespace {

static_assert(std::endian::native == std::endian::little, "the numbers in files are little-endian");

constexpr std::uint64_t kLongestHeader = 100'000'000;  // what the format allows

void read_bytes(std::istream& in, std::uint64_t at, char* to, std::uint64_t n) {
    in.seekg(static_cast<std::streamoff>(at));
    if (!in.read(to, static_cast<std::streamsize>(n))) throw std::runtime_error("could not be read to its end");
}

std::uint64_t bytes_of(const std::string& dtype, const std::string& what) {
    constexpr std::array<std::pair<std::string_view, std::uint64_t>, 16> kBytes = {{{"BOOL", 1},
                                                                                    {"U8", 1},
                                                                                    {"I8", 1},
                                                                                    {"F8_E5M2", 1},
                                                                                    {"F8_E4M3", 1},
                                                                                    {"F8_E8M0", 1},
                                                                                    {"I16", 2},
                                                                                    {"U16", 2},
                                                                                    {"F16", 2},
                                                                                    {"BF16", 2},
                                                                                    {"I32", 4},
                                                                                    {"U32", 4},
                                                                                    {"F32", 4},
                                                                                    {"F64", 8},
                                                                                    {"I64", 8},
                                                                                    {"U64", 8}}};
    for (const auto& [name, bytes] : kBytes)
        if (name == dtype) return bytes;
    throw std::invalid_argument("expected " + what + " with a dtype of safetensors, got '" + printable(dtype) + "'");
}

std::uint64_t size_at(const JsonValue& value, const std::string& what) {
    const std::int64_t n = value.integer(what);
    if (n < 0) throw std::invalid_argument("expected " + what + " not below zero, got " + std::to_string(n));
    return static_cast<std::uint64_t>(n);
}

Tensor tensor_of(const JsonValue& value, const std::string& what) {
    Tensor tensor;
    tensor.dtype = value.at("dtype", what).string("the dtype of " + what);
    std::uint64_t bytes = bytes_of(tensor.dtype, what);
    for (const JsonValue& item : value.at("shape", what).items("the shape of " + what)) {
        const std::uint64_t n = size_at(item, "the shape of " + what);
        if (n > 0 && bytes > std::numeric_limits<std::int64_t>::max() / n)
            throw std::invalid_argument("expected " + what + " with a shape that memory can hold");
        bytes *= n;
        tensor.shape.push_back(static_cast<std::int64_t>(n));
    }
    const auto offsets = value.at("data_offsets", what).items("the offsets of " + what);
    if (offsets.size() != 2) throw std::invalid_argument("expected " + what + " with two offsets");
    tensor.begin = size_at(offsets[0], "the offsets of " + what);
    tensor.end = size_at(offsets[1], "the offsets of " + what);
    if (tensor.end < tensor.begin || tensor.end - tensor.begin != bytes)
        throw std::invalid_argument("expected " + what + " of " + std::to_string(bytes) +
                                    " bytes, as its shape says, " + "got offsets " + std::to_string(tensor.begin) +
                                    " and " + std::to_string(tensor.end));
    return tensor;
}

// Tensors follow upon each other, from the header's end to that of the file.
void check_places(const std::map<std::string, Tensor>& tensors, std::uint64_t n_bytes) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
    for (const auto& [name, tensor] : tensors) places.push_back({tensor.begin, tensor.end});
    std::sort(places.begin(), places.end());
    std::uint64_t at = 0;
    for (const auto& [begin, end] : places) {
        if (begin != at)
            throw std::invalid_argument("expected a tensor at byte " + std::to_string(at) +
                                        " of its data, the next one is at " + std::to_string(begin));
        at = end;
    }
    if (at != n_bytes)
        throw std::invalid_argument("expected " + std::to_string(at) + " bytes of data, got " +
                                    std::to_string(n_bytes));
}

}  // namespace

Safetensors::Safetensors(std::istream& in, std::uint64_t size) : in_(in) {
    std::array<unsigned char, 8> bytes;
    if (size < bytes.size())
        throw std::invalid_argument("expected eight bytes with the header's length, got " + std::to_string(size));
    read_bytes(in, 0, reinterpret_cast<char*>(bytes.data()), bytes.size());
    std::uint64_t length = 0;
    for (std::size_t k = bytes.size(); k-- > 0;) length = length << 8 | bytes[k];
    if (length > kLongestHeader || length > size - bytes.size())
        throw std::invalid_argument("expected a header of at most " +
                                    std::to_string(std::min(kLongestHeader, size - bytes.size())) + " bytes, got " +
                                    std::to_string(length));
    std::string header(static_cast<std::size_t>(length), '\0');
    read_bytes(in, bytes.size(), header.data(), length);
    if (header.empty() || header[0] != '{') throw std::invalid_argument("expected a header that begins with '{'");
    first_ = bytes.size() + length;
    const Json json(std::move(header));
    for (const auto& [name, value] : json.root().members("the header")) {
        if (name == "__metadata__") {
            for (const auto& [key, text] : value.members("the metadata"))
                metadata_[key] = text.string("the metadata of '" + printable(key) + "'");
        } else {
            tensors_.emplace(name, tensor_of(value, "tensor '" + printable(name) + "'"));
        }
    }
    check_places(tensors_, size - first_);
}

template <class T>
AlignedVector<T> Safetensors::read(const Tensor& tensor) {
    const std::uint64_t n_bytes = tensor.end - tensor.begin;
    if (tensor.dtype != (sizeof(T) == 4 ? "F32" : "F64")) throw std::logic_error("a tensor of another dtype");
    AlignedVector<T> numbers(static_cast<std::size_t>(n_bytes / sizeof(T)));
    read_bytes(in_, first_ + tensor.begin, reinterpret_cast<char*>(numbers.data()), n_bytes);
    return numbers;
}

template AlignedVector<float> Safetensors::read(const Tensor&);
template AlignedVector<double> Safetensors::read(const Tensor&);

}  // namespace mdgnn::engine
