#include "report.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace emulation {
namespace {

// What addr2line says of an address.
std::vector<std::string> lines_of(const void* address, const char* options) {
    Dl_info info;
    if (!dladdr(address, &info) || !info.dli_fname) return {};
    const auto offset = static_cast<const char*>(address) - static_cast<const char*>(info.dli_fbase);
    char command[1024];
    std::snprintf(command, sizeof command, "addr2line %s -e '%s' %#tx", options, info.dli_fname, offset);
    std::vector<std::string> lines;
    if (FILE* output = popen(command, "r")) {
        char line[1024];
        while (std::fgets(line, sizeof line, output))
            lines.emplace_back(line, std::char_traits<char>::length(line) - 1);
        pclose(output);
    }
    return lines;
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
    for (const std::string& line : lines_of(static_cast<const char*>(code) - 1, "-i"))
        text += (text.empty() ? "" : " < ") + short_path(line);
    return text.empty() ? "a place unknown" : text;
}

std::string name_of_function(const void* function) {
    const auto lines = lines_of(function, "-f -C");
    return lines.empty() ? "unknown" : lines[0];
}

}  // namespace emulation
