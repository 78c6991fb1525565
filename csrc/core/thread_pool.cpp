#include "core/thread_pool.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

namespace mdgnn {
namespace {

struct Job {
    const std::function<void(std::int64_t, std::int64_t)>* body;
    std::int64_t n, grain;
    std::atomic<std::int64_t> next{0};
    std::mutex error_mutex;
    std::exception_ptr error;

    void work() {
        try {
            for (std::int64_t begin; (begin = next.fetch_add(grain)) < n;) (*body)(begin, std::min(n, begin + grain));
        } catch (...) {
            next = n;
            std::lock_guard lock(error_mutex);
            if (!error) error = std::current_exception();
        }
    }
};

// The next loop of a kernel follows after microseconds, and to wake a sleeping thread takes tens of them: before it
// sleeps it looks around for as long, leaving the core to whoever wants it.
template <class Condition>
void linger(const Condition& over) {
    constexpr std::chrono::microseconds kLong{50};
    const auto end = std::chrono::steady_clock::now() + kLong;
    while (!over() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
}

int this_core() {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;  // unknown
#endif
}

class Pool {
  public:
    // Only one job at a time: the caller sets `busy`.
    std::atomic_flag busy;

    void run(Job& job, int helpers) {
        helpers = start(helpers);
        {
            const auto lock = lock_soon();
            job_ = &job;
            helpers_ = helpers;
            caller_ = this_core();
            ++generation_;
        }
        wake_.notify_all();
        job.work();
        {
            const auto lock = lock_soon();
            job_ = nullptr;  // nothing is left: who is not awake yet is not waited for
        }
        linger([this] { return running_ == 0; });
        if (running_ == 0) return;
        std::unique_lock lock(mutex_);
        waiting_ = true;  // before running_ is read again: the last worker reads them the other way round
        done_.wait(lock, [this] { return running_ == 0; });
        waiting_ = false;
    }

  private:
    // Starts missing workers, and returns how many of the n ones there are: the system may refuse more.
    int start(int n) {
        try {
            for (int id = n_threads_; id < n; n_threads_ = ++id) std::thread([this, id] { loop(id); }).detach();
        } catch (const std::exception&) {
        }
        return std::min(n_threads_, n);
    }

    // What is done under the lock takes nanoseconds, and sleeping for it takes thousands.
    std::unique_lock<std::mutex> lock_soon() {
        std::unique_lock lock(mutex_, std::defer_lock);
        linger([&] { return lock.try_lock(); });
        if (!lock) lock.lock();
        return lock;
    }

    void loop(int id) {
        std::uint64_t seen = 0;
        for (bool worked = false;;) {
            // Not on the caller's own core: only sleepers are moved to another at once.
            const int core = this_core();
            if (worked && (core < 0 || core != caller_)) linger([&] { return generation_ != seen; });
            worked = false;
            Job* job;
            {
                auto lock = lock_soon();
                wake_.wait(lock, [&] { return generation_ != seen; });
                seen = generation_;
                if (job_ == nullptr || id >= helpers_) continue;
                job = job_;
                ++running_;
            }
            job->work();
            worked = true;
            if (--running_ > 0 || !waiting_) continue;
            std::lock_guard lock(mutex_);
            done_.notify_one();
        }
    }

    int n_threads_ = 0;  // they are detached, and live as long as the process
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    int helpers_ = 0;
    std::atomic<int> running_ = 0, caller_ = -1;  // helpers at work; the core of the caller
    std::atomic<bool> waiting_ = false;
    std::atomic<std::uint64_t> generation_ = 0;
};

// Whether this process is a child by fork that runs the program of its parent: who loads this library after the fork is
// not told. OpenMP may have had threads before.
bool is_forked() {
#ifdef __linux__
    constexpr unsigned long kForkedWithoutExec = 0x40;  // among the process' flags
    std::ifstream file("/proc/self/stat");
    std::string text;
    std::getline(file, text);
    unsigned long flags = 0;
    const std::size_t name = text.rfind(')');
    if (name != std::string::npos && std::sscanf(&text[name + 1], " %*c %*d %*d %*d %*d %*d %lu", &flags) == 1)
        return flags & kForkedWithoutExec;
#endif
    return false;
}

std::atomic<Pool*> instance{nullptr};
std::atomic<bool> forked{is_forked()};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { instance = nullptr, forked = true; });

// How OpenMP starts its threads, where a library of this process has brought its runtime. By name, so that nothing
// needs to be linked. Its threads do not survive a fork.
using OpenMp = void (*)(void (*)(void*), void*, unsigned n_threads, unsigned flags);
OpenMp openmp() {
    static std::atomic<OpenMp> known{nullptr};
    OpenMp openmp = known;
    if (openmp == nullptr && !forked) known = openmp = reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return forked ? nullptr : openmp;
}

using Clock = std::chrono::steady_clock;
std::atomic<Clock::time_point> own_until{Clock::time_point{}};  // the machine was found to be busy
std::atomic<int> slow_loops{0};

// Always with all threads: a smaller team would end some.
void run_on_openmp(OpenMp run, Job& job, int n_threads) {
    struct Call {
        Job& job;
        std::thread::id caller;
        Clock::time_point begun, done;
    } call{job, std::this_thread::get_id(), {}, {}};
    const Clock::time_point before = Clock::now();  // helpers are waited for at both ends
    run(
        [](void* argument) {
            Call& c = *static_cast<Call*>(argument);
            const bool mine = std::this_thread::get_id() == c.caller;
            if (mine) c.begun = Clock::now();
            c.job.work();
            if (mine) c.done = Clock::now();
        },
        &call, static_cast<unsigned>(n_threads), 0);
    constexpr std::chrono::microseconds kPatience{500};  // several times what one chunk of a loop takes
    constexpr int kLoops = 3;                            // one after the other; a single one may be any disturbance
    const Clock::time_point now = Clock::now();
    const bool slow = (now - call.done) + (call.begun - before) > kPatience;
    if ((slow_loops = slow ? slow_loops + 1 : 0) < kLoops) return;
    slow_loops = 0, own_until = now + std::chrono::seconds(1);
}

// Threads do not survive fork (DataLoader workers, multiprocessing): a child process starts a pool of its own. Pools
// are never destroyed, because their threads are detached; and there is no lock that a fork could leave held.
Pool& pool() {
    Pool* pool = instance;
    if (pool != nullptr) return *pool;
    Pool* made = new Pool;
    if (instance.compare_exchange_strong(pool, made)) return *made;
    delete made;  // another thread was first
    return *pool;
}

}  // namespace

void run_in_parallel(std::int64_t n, std::int64_t grain, int n_threads,
                     const std::function<void(std::int64_t, std::int64_t)>& body, Team team) {
    grain = std::max<std::int64_t>(grain, 1);
    const std::int64_t chunks = (n - 1) / grain + 1;
    const int helpers = static_cast<int>(std::min<std::int64_t>(n_threads, chunks)) - 1;
    if (helpers < 1) return body(0, n);
    Pool& shared = pool();
    if (shared.busy.test_and_set(std::memory_order_acquire)) return body(0, n);
    Job job{&body, n, grain, {}, {}, {}};
    const OpenMp run = team == Team::openmp && Clock::now() > own_until.load() ? openmp() : nullptr;
    if (run)
        run_on_openmp(run, job, n_threads);
    else
        shared.run(job, helpers);
    shared.busy.clear(std::memory_order_release);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace mdgnn
