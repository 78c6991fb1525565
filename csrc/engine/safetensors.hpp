// The format of Hugging Face's safetensors (version 0.4 and later): eight bytes with the length of a header, least
// first; the header, JSON that names each tensor's dtype, shape and place; their numbers, without holes.
#pragma once

#include <cstdint>
#include <istream>
#include <map>
#include <string>
#include <vector>

#include "core/aligned.hpp"

namespace mdgnn::engine {

struct Tensor {
    std::string dtype;  // such as "F32"
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;  // bytes after the header
};

class Safetensors {
  public:
    // Reads the header of what has `size` bytes, and keeps the stream for `read`. Throws std::invalid_argument, with
    // what was expected, unless everything fits together; std::runtime_error where the stream fails.
    Safetensors(std::istream& in, std::uint64_t size);

    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    const std::map<std::string, Tensor>& tensors() const { return tensors_; }

    // The numbers of a tensor that has the dtype of T.
    template <class T>
    AlignedVector<T> read(const Tensor& tensor);

  private:
    std::istream& in_;
    std::uint64_t first_ = 0;  // byte of the numbers
    std::map<std::string, std::string> metadata_;
    std::map<std::string, Tensor> tensors_;
};

}  // namespace mdgnn::engine
