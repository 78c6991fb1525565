// Accesses of warps, as a GPU would make them. Lanes run one after another here: what they do at once is put together
// again. The n-th visits of lanes to an instruction, since all of them last met, are one access of the warp.
//
// Global memory is read and written in sectors of 32 bytes: an access takes those that its lanes touch. Shared memory
// has 32 banks of 4 bytes: words of one bank are one after another, of 8 bytes for half a warp at a time and of 16 for
// a quarter. What lies in a thread's stack counts as registers. The compiler of the CPU takes aligned structs apart:
// instructions that together move 16 aligned bytes for every lane, every time, are put together, too.
#include "traffic.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "block.hpp"
#include "report.hpp"

namespace emulation {

bool counts_traffic = false;

namespace {

constexpr std::uintptr_t kSector = 32, kBanks = 32, kWord = 4;
constexpr std::size_t kWide = 16;  // what one instruction moves at most

// One access of a warp.
struct WarpAccess {
    bool shared = false, reads = false, writes = false;
    unsigned lanes = 0;
    std::array<std::uintptr_t, kWarp> address;
    std::array<std::uint8_t, kWarp> n_bytes;
};

// What the lanes of a warp did at one instruction since they met: how often each, and all of it.
struct Instruction {
    std::array<std::uint32_t, kWarp> visits = {};
    std::vector<WarpAccess> accesses;
};
std::array<std::unordered_map<const void*, Instruction>, kMostThreads / kWarp> warps;

// Sums over launches of a kernel, for each instruction.
struct Counts {
    std::uint64_t accesses = 0, lanes = 0;  // of warps, and the lanes that took part
    std::uint64_t bytes_read = 0, bytes_written = 0, sectors_read = 0, sectors_written = 0;  // of global memory
    std::uint64_t useful = 0;                      // bytes of those sectors that a lane asked for
    std::uint64_t shared_accesses = 0, turns = 0;  // of shared memory: how many turns its banks took
};
struct Launches {
    std::uint64_t n = 0, blocks = 0, threads = 0;
    std::uint64_t first_read = 0, first_written = 0;  // sectors, each once a launch
    std::map<const void*, Counts> instructions;
};
std::map<const void*, Launches> launches_of;  // by kernel
Launches* launches = nullptr;                 // of the kernel that runs

struct Visited {
    bool read = false, written = false;
};
std::unordered_map<std::uintptr_t, Visited> sectors;  // of this launch

template <class Body>
void each_lane(unsigned lanes, Body&& body) {
    for (; lanes; lanes &= lanes - 1) body(static_cast<std::size_t>(std::countr_zero(lanes)));
}

void count_global(const WarpAccess& access, Counts& counts) {
    static std::vector<std::pair<std::uintptr_t, std::uint32_t>> touched;  // sectors, and their bytes as bits
    touched.clear();
    std::uint64_t n_bytes = 0;
    each_lane(access.lanes, [&](std::size_t lane) {
        n_bytes += access.n_bytes[lane];
        for (std::uintptr_t at = access.address[lane], end = at + access.n_bytes[lane]; at < end;) {
            const std::uintptr_t sector = at / kSector, from = at % kSector;
            const std::uintptr_t n = std::min(end - at, kSector - from);
            touched.push_back({sector, static_cast<std::uint32_t>(((std::uint64_t{1} << n) - 1) << from)});
            at += n;
        }
    });
    std::sort(touched.begin(), touched.end());
    std::uint64_t n_sectors = 0;
    for (std::size_t k = 0; k < touched.size();) {
        std::uint32_t bytes = 0;
        const std::uintptr_t sector = touched[k].first;
        for (; k < touched.size() && touched[k].first == sector; ++k) bytes |= touched[k].second;
        ++n_sectors;
        counts.useful += static_cast<std::uint64_t>(std::popcount(bytes));
        Visited& visited = sectors[sector];
        if (access.reads && !visited.read && !visited.written) ++launches->first_read;
        if (access.writes && !visited.written) ++launches->first_written;
        visited.read |= access.reads, visited.written |= access.writes;
    }
    // An atomic takes its sectors once, to where it is done.
    (access.writes ? counts.sectors_written : counts.sectors_read) += n_sectors;
    if (access.reads) counts.bytes_read += n_bytes;
    if (access.writes) counts.bytes_written += n_bytes;
}

void count_shared(const WarpAccess& access, Counts& counts) {
    const std::size_t widest = *std::max_element(access.n_bytes.begin(), access.n_bytes.end());
    const std::size_t at_once = widest <= 4 ? 32 : widest <= 8 ? 16 : 8;  // lanes
    for (std::size_t first = 0; first < kWarp; first += at_once) {
        const unsigned mask = at_once == 32 ? ~0u : ((1u << at_once) - 1) << first;
        std::vector<std::uintptr_t> words;
        each_lane(access.lanes & mask, [&](std::size_t lane) {
            for (auto at = access.address[lane] / kWord; at * kWord < access.address[lane] + access.n_bytes[lane]; ++at)
                words.push_back(at);
        });
        if (words.empty()) continue;
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        std::array<std::uint64_t, kBanks> of_bank = {};
        for (const std::uintptr_t word : words) ++of_bank[word % kBanks];
        ++counts.shared_accesses;
        counts.turns += *std::max_element(of_bank.begin(), of_bank.end());
    }
}

void note_piece(std::uintptr_t address, std::size_t n_bytes, const Touch& touch) {
    const int thread = number_of(current);
    const auto lane = static_cast<std::size_t>(thread % kWarp);
    Instruction& instruction = warps[static_cast<std::size_t>(thread / kWarp)][touch.code];
    const std::uint32_t n = instruction.visits[lane]++;
    if (instruction.accesses.size() <= n) instruction.accesses.resize(n + 1);
    WarpAccess& access = instruction.accesses[n];
    access.shared = touch.shared_name != nullptr, access.reads = touch.reads, access.writes = touch.writes;
    if (access.lanes == 0) access.n_bytes = {};
    access.lanes |= 1u << lane;
    access.address[lane] = address, access.n_bytes[lane] = static_cast<std::uint8_t>(n_bytes);
}

// Whether each access of `second` goes on where that of `first` ended, `distance` bytes on, in all lanes.
bool goes_on(const Instruction& first, const Instruction& second, std::size_t distance) {
    if (second.accesses.size() != first.accesses.size()) return false;
    for (std::size_t n = 0; n < first.accesses.size(); ++n) {
        const WarpAccess &a = first.accesses[n], &b = second.accesses[n];
        if (a.lanes != b.lanes || a.shared != b.shared || a.reads != b.reads || a.writes != b.writes) return false;
        bool same = true;
        each_lane(a.lanes, [&](std::size_t lane) {
            same &= b.address[lane] == a.address[lane] + distance && a.n_bytes[lane] == b.n_bytes[lane];
        });
        if (!same) return false;
    }
    return true;
}

// The bytes of every access of an instruction that begins at 16 aligned bytes in all lanes; otherwise 0.
std::size_t width_of_first_piece(const Instruction& instruction) {
    std::size_t width = 0;
    bool fits = true;
    for (const WarpAccess& access : instruction.accesses)
        each_lane(access.lanes, [&](std::size_t lane) {
            if (width == 0) width = access.n_bytes[lane];
            fits &= access.n_bytes[lane] == width && access.address[lane] % kWide == 0;
        });
    return fits && (width == 4 || width == 8) ? width : 0;
}

// Puts the pieces of what nvcc moves at once together, into the first of them.
void join_pieces(std::unordered_map<const void*, Instruction>& instructions) {
    std::multimap<std::uintptr_t, Instruction*> by_address;  // of the first lane, at first
    for (auto& [code, instruction] : instructions)
        if (!instruction.accesses.empty()) {
            const WarpAccess& access = instruction.accesses[0];
            by_address.insert({access.address[static_cast<std::size_t>(std::countr_zero(access.lanes))], &instruction});
        }
    for (const auto& [address, first] : by_address) {
        const std::size_t width = first->accesses.empty() ? 0 : width_of_first_piece(*first);
        if (width == 0) continue;
        std::vector<Instruction*> others;
        for (std::size_t distance = width; distance < kWide; distance += width)
            for (auto [at, end] = by_address.equal_range(address + distance); at != end; ++at)
                if (goes_on(*first, *at->second, distance)) {
                    others.push_back(at->second);
                    break;
                }
        if (others.size() != kWide / width - 1) continue;
        for (Instruction* other : others) other->accesses.clear(), other->visits = {};
        for (WarpAccess& access : first->accesses)
            each_lane(access.lanes, [&](std::size_t lane) { access.n_bytes[lane] = kWide; });
    }
}

}  // namespace

void begin_launch_of_traffic(const Kernel& kernel, std::uint64_t n_blocks, std::uint64_t n_threads) {
    if (!counts_traffic) return;
    launches = &launches_of[kernel.function];
    ++launches->n, launches->blocks += n_blocks, launches->threads += n_blocks * n_threads;
    sectors.clear();
    for (auto& instructions : warps) instructions.clear();
}

void count_access(std::uintptr_t address, const Touch& touch) {
    if (!counts_traffic) return;
    if (touch.n_bytes <= 16) return note_piece(address, touch.n_bytes, touch);
    const std::size_t piece = address % kWide == 0 && touch.n_bytes % kWide == 0 ? kWide : 8;  // of a copied struct
    for (std::size_t from = 0; from < touch.n_bytes; from += piece)
        note_piece(address + from, std::min(piece, touch.n_bytes - from), touch);
}

void end_accesses_of_warp(int warp) {
    if (!counts_traffic) return;
    join_pieces(warps[static_cast<std::size_t>(warp)]);
    for (auto& [code, instruction] : warps[static_cast<std::size_t>(warp)]) {
        if (instruction.accesses.empty()) continue;
        Counts& counts = launches->instructions[code];
        for (const WarpAccess& access : instruction.accesses) {
            ++counts.accesses;
            counts.lanes += static_cast<std::uint64_t>(std::popcount(access.lanes));
            access.shared ? count_shared(access, counts) : count_global(access, counts);
        }
        instruction.accesses.clear();
        instruction.visits = {};
    }
}

void end_accesses_of_block() {
    if (!counts_traffic) return;
    for (int warp = 0; warp < kMostThreads / kWarp; ++warp) end_accesses_of_warp(warp);
}

}  // namespace emulation

using namespace emulation;

// For Python.
extern "C" {

// Begins to count, from nothing, or ends it.
void emulation_count_traffic(bool counts) {
    counts_traffic = counts;
    if (counts) launches_of.clear();
}

// A line for each kernel: its name, launches, blocks, threads, sectors that were read and written once a launch. Behind
// it those of its instructions, which begin with a tab: their place in the source, if asked for, and the numbers of
// Counts.
const char* emulation_traffic(bool with_places) {
    static std::string text;
    text.clear();
    const auto add = [&](const std::string& begin, std::initializer_list<std::uint64_t> numbers) {
        text += begin;
        for (const std::uint64_t number : numbers) text += "\t" + std::to_string(number);
        text += "\n";
    };
    for (const auto& [function, of] : launches_of) {
        add(name_of_function(function), {of.n, of.blocks, of.threads, of.first_read, of.first_written});
        for (const auto& [code, c] : of.instructions)
            add("\t" + (with_places ? place_of(code) : ""),
                {c.accesses, c.lanes, c.bytes_read, c.bytes_written, c.sectors_read, c.sectors_written, c.useful,
                 c.shared_accesses, c.turns});
    }
    return text.c_str();
}
}
