#include "engine/file.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <type_traits>

#include "engine/json.hpp"
#include "engine/reader_parts.hpp"
#include "engine/safetensors.hpp"

namespace mdgnn::engine {
namespace {

// The tensors of a file as weights.
template <class T>
WeightSource<T> tensors_of(Safetensors& file) {
    return [&file](const std::string& name, const std::string& what) {
        const std::string tensor = "tensor '" + printable(name) + "'";
        const auto at = file.tensors().find(name);
        if (at == file.tensors().end())
            throw std::invalid_argument("expected " + tensor + " in the file, a weight of " + what);
        const char* const dtype = std::is_same_v<T, float> ? "F32" : "F64";
        if (at->second.dtype != dtype)
            throw std::invalid_argument("expected " + tensor + " as " + dtype + ", got " + at->second.dtype);
        AlignedVector<T> data = file.read<T>(at->second);
        for (const T x : data)
            if (!std::isfinite(x)) throw std::invalid_argument("expected finite numbers in " + tensor);
        return std::pair{at->second.shape, std::move(data)};
    };
}

Model program_of(const JsonValue& from, std::int64_t version, Safetensors& file) {
    return dtype_of(from) == "float32" ? read_program<float>(from, version, tensors_of<float>(file))
                                       : read_program<double>(from, version, tensors_of<double>(file));
}

Model read(std::istream& in, std::uint64_t size, const std::string& name) {
    Safetensors file = within(name + " is not a complete safetensors file", [&] { return Safetensors(in, size); });
    const auto entry = file.metadata().find("mdgnn");
    if (entry == file.metadata().end())
        throw std::invalid_argument(name + " is a safetensors file, but not an mdgnn model: it has no mdgnn header");
    const std::string broken = name + " has a broken mdgnn header", bad = name + " has a program that does not fit";
    const Json json = within(broken, [&] { return Json(entry->second); });
    const auto integer = [](const JsonValue& of, const char* key, const char* what) {
        return of.at(key, what).integer(std::string("the ") + key);
    };
    const std::int64_t format = within(broken, [&] { return integer(json.root(), "format_version", "the header"); });
    if (format != 2 && format != 3)
        throw std::invalid_argument(name + " has model format " + std::to_string(format) +
                                    ", the engine reads formats 2 and 3" +
                                    (format == 1 ? "; mdgnn.save writes a loaded model in format 3" : ""));
    for (const auto& [key, program] : json.root().members("the header")) {
        if (key != "program" || program.is_null()) continue;
        const std::int64_t version = within(bad, [&] { return integer(program, "version", "the program"); });
        if (format == 2 ? version != 1 : version != 2 && version != 3)
            throw std::invalid_argument(name + " has a program of version " + std::to_string(version) +
                                        ", this mdgnn reads " + (format == 2 ? "version 1" : "versions 2 and 3") +
                                        " in format " + std::to_string(format));
        return within(bad, [&] { return program_of(program, version, file); });
    }
    throw std::invalid_argument(name + " holds no program: the engine cannot run its model");
}

}  // namespace

Model read_model(std::istream& in, std::uint64_t size, const std::string& name) {
    try {
        return read(in, size, name);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(name + " " + error.what());
    }
}

Model model_in(std::string content, const std::string& name) {
    const std::uint64_t size = content.size();
    std::istringstream in(std::move(content));
    return read_model(in, size, printable(name, name.size()));
}

Model load_model(const std::string& path) {
    const std::string name = printable(path, path.size());
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) throw std::runtime_error(name + " is not a file");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    std::ifstream in(path, std::ios::binary);
    if (error || !in) throw std::runtime_error(name + " cannot be read");
    return read_model(in, size, name);
}

}  // namespace mdgnn::engine
