// CUDA helpers: every call is checked, and the caller's device is restored.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/view.hpp"

namespace mdgnn::cuda {

inline void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Selects the tensor's device for this thread and restores the previous one: torch keeps its own idea of it.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_), "cudaGetDevice");
        if (device != previous_) check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() { cudaSetDevice(previous_); }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int previous_ = 0;
};

inline cudaStream_t stream(const Context& context) { return static_cast<cudaStream_t>(context.stream); }

// Starts a kernel of blocks x threads on the context's stream.
template <class... P, class... A>
void launch(void (*kernel)(P...), const char* what, std::int64_t blocks, int threads, const Context& context,
            const A&... arguments) {
    kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream(context)>>>(arguments...);
    check(cudaGetLastError(), what);
}

}  // namespace mdgnn::cuda
