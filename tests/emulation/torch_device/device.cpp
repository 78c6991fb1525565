// The device cuda:0 of a torch without CUDA: its memory is the machine's, and it has one stream, which is never behind.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstring>

#include "machine/stream.hpp"

namespace {

const c10::Device kDevice(c10::DeviceType::CUDA, 0);

struct Allocator final : c10::Allocator {
    c10::DataPtr allocate(std::size_t n_bytes) override {
        void* const p = n_bytes > 0 ? emulation::make_array(n_bytes) : nullptr;
        return {p, p, raw_deleter(), kDevice};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &emulation::drop_array; }
    void copy_data(void* to, const void* from, std::size_t n_bytes) const override { std::memcpy(to, from, n_bytes); }
};

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
    c10::DeviceType type() const override { return kDevice.type(); }
    c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
    c10::Device getDevice() const override { return kDevice; }
    void setDevice(c10::Device) const override {}
    void uncheckedSetDevice(c10::Device) const noexcept override {}
    c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
    c10::Stream exchangeStream(c10::Stream) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
    c10::DeviceIndex deviceCount() const noexcept override { return 1; }
    void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
    bool queryStream(const c10::Stream&) const override { return true; }
    void synchronizeStream(const c10::Stream&) const override {}
    void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};

// What torch asks of its CUDA library.
struct Hooks final : at::CUDAHooksInterface {
    explicit Hooks(at::CUDAHooksArgs) {}
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
    c10::DeviceIndex current_device() const override { return 0; }
    c10::DeviceIndex deviceCount() const override { return 1; }
    c10::DeviceIndex getCurrentDevice() const override { return 0; }
    int getNumGPUs() const override { return 1; }
    void deviceSynchronize(c10::DeviceIndex) const override {}
};

Allocator allocator;
DeviceGuard guard;
const bool registered = [] {
    c10::impl::device_guard_impl_registry[static_cast<std::size_t>(kDevice.type())].store(&guard);
    c10::SetAllocator(kDevice.type(), &allocator, 1);
    return true;
}();

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}
