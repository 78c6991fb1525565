// Programs from model files, which mdgnn.save writes: no Python is needed here, and what a file says is not trusted.
//
// A model file is safetensors; its metadata has one entry, "mdgnn", the text of a JSON object. There, "program" is null
// or a program as engine/reader.hpp has it, whose weights are names of tensors: of version 1 in files of format 2, of
// version 2 or 3 in files of format 3.
#pragma once

#include <cstdint>
#include <istream>
#include <string>

#include "engine/reader.hpp"

namespace mdgnn::engine {

// All throw std::invalid_argument, with a sentence that names the file, unless it holds a program that passes `check`;
// std::runtime_error where it cannot be read. Memory is bounded by the size of the file.
Model load_model(const std::string& path);
Model model_in(std::string content, const std::string& name);  // of a file that has been read, of this name
Model read_model(std::istream& in, std::uint64_t size, const std::string& name);

}  // namespace mdgnn::engine
