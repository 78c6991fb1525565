#include "report.hpp"

#include <dlfcn.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <vector>

namespace emulation {
namespace {

// The lines that a program prints; where it failed, why, in one line. A signal may come while it is waited for.
std::vector<std::string> output_of(const std::string& command) {
    FILE* const output = popen((command + " 2>&1").c_str(), "r");
    if (!output) return {std::string("cannot run ") + command + ": " + std::strerror(errno)};
    std::string text;
    for (;;) {
        const int c = std::fgetc(output);
        if (c != EOF)
            text += static_cast<char>(c);
        else if (std::ferror(output) && errno == EINTR)
            std::clearerr(output);
        else
            break;
    }
    const int status = pclose(output);
    std::vector<std::string> lines;
    std::istringstream all(text);
    for (std::string line; std::getline(all, line);) lines.push_back(line);
    if (status != 0 && lines.empty()) lines.push_back(command + " ended with status " + std::to_string(status));
    return lines;
}

struct Place {
    std::string library;
    std::uintptr_t offset = 0;
};

Place place_in_library(const void* address) {
    Dl_info info;
    if (!dladdr(address, &info) || !info.dli_fname) return {};
    return {info.dli_fname,
            reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(info.dli_fbase)};
}

// From the project's folder on.
std::string short_path(const std::string& path) {
    for (const char* folder : {"csrc/", "tests/emulation/"})
        if (const auto at = path.find(folder); at != std::string::npos) return path.substr(at);
    return path.substr(path.rfind('/') + 1);
}

}  // namespace

std::string& failure() {
    static std::string text;
    return text;
}

void fail(const std::string& what) {
    if (failure().empty()) failure() = "emulated CUDA: " + what;
    if (current) leave_kernel();
}

void stop(const std::string& what) {
    std::fprintf(stderr, "emulated CUDA: %s\n", what.c_str());
    std::abort();
}

std::string in_words(const Meeting& meeting) {
    static constexpr const char* kNames[] = {"__syncthreads",  "__syncwarp",       "__shfl_sync",
                                             "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync",
                                             "__ballot_sync",  "__match_any_sync"};
    std::string text = kNames[static_cast<int>(meeting.collective)];
    if (meeting.collective != Collective::syncthreads) text += " of the lanes " + hexadecimal(meeting.mask);
    return text + " at " + short_path(meeting.site.file) + ":" + std::to_string(meeting.site.line);
}

std::string thread_in_words(std::uint64_t block, int thread) {
    return "block " + std::to_string(block) + " thread " + std::to_string(thread) + " (warp " +
           std::to_string(thread / kWarp) + " lane " + std::to_string(thread % kWarp) + ")";
}

std::string hexadecimal(std::uintptr_t x) {
    char text[32];
    std::snprintf(text, sizeof text, "%#zx", x);
    return text;
}

std::string place_of(const void* code) {
    std::string text;  // the address is that of the instruction behind the call
    const Place place = place_in_library(static_cast<const char*>(code) - 1);
    for (const std::string& line : output_of("addr2line -i -e '" + place.library + "' " + hexadecimal(place.offset)))
        text += (text.empty() ? "" : " < ") + short_path(line);
    return text.empty() ? "a place unknown" : text;
}

// By the table of symbols: debug information has the names of functions that were inlined where this one begins.
std::string name_of_function(const void* function) {
    static std::map<std::string, std::map<std::uintptr_t, std::string>> symbols;
    const Place place = place_in_library(function);
    auto& names = symbols[place.library];
    if (names.empty())
        for (const std::string& line : output_of("nm -C --defined-only '" + place.library + "'"))
            names.emplace(std::strtoull(line.c_str(), nullptr, 16), line.substr(line.find(' ') + 3));
    const auto name = names.find(place.offset);
    return name == names.end() ? "unknown" : name->second;
}

}  // namespace emulation
