// Programs from model files, which mdgnn.save writes: no Python is needed here, and what a file says is not trusted.
//
// A model file is safetensors; its metadata has one entry, "mdgnn", the text of a JSON object. There, "program" is null
// or an object with these keys and no others:
//   version       1
//   dtype         "float32" or "float64", of all weights
//   readout       "sum" or "mean" of the atoms' energies
//   values        [[blocks, cols, base, first], ...]
//   instructions  [{"code", "inputs", "outputs", "weights", "constant"}, ...]; weights are names of tensors, each
//                 of which comes once at most
//   energies, scale, shift, element_of, cutoff, where null is infinity: as in engine/program.hpp
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <variant>

#include "engine/program.hpp"

namespace mdgnn::engine {

struct Model {
    std::variant<Program<float>, Program<double>> program;
    std::string readout;  // "sum" or "mean" of the atoms' energies
};

// Both throw std::invalid_argument, with a sentence that names the file, unless it holds a program that passes `check`;
// std::runtime_error where it cannot be read. Memory is bounded by the size of the file.
Model load_model(const std::string& path);
Model read_model(std::istream& in, std::uint64_t size, const std::string& name);

}  // namespace mdgnn::engine
