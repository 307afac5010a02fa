// A stand-in for the CUDA driver's library: what cudarc calls of it, on host memory. A call that is not here cannot be
// found by name, which cudarc takes for a fatal error.
//
// CUDA_EMULATION_SEED=n           another order of threads
// CUDA_EMULATION_FAULT=call:n:e   the n-th call of a function fails with error e; of 700 and above, all later ones do too
// CUDA_EMULATION_VERSION=v        the newest CUDA that it knows, 1000 * major + 10 * minor; 12000 without
// CUDA_EMULATION_NO_POOLS=1       a device without stream-ordered allocation
// CUDA_EMULATION_COUNTS=path      writes how often each function was called there, at the end of the process
#include "execution.h"
#include "kernels.h"
#include "memory.h"
#include "stream.h"

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <string>

using namespace emulation;

typedef int Result;
typedef unsigned long long Address;

namespace {

const Result SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_PTX = 218, NOT_FOUND = 500,
             NOT_READY = 600, FIRST_STICKY = 700;

struct Module {
    std::string ptx;
};

struct Driver {
    std::recursive_mutex lock;
    std::map<std::string, unsigned long long> calls;
    std::map<void*, size_t> pinned;
    Result lost = SUCCESS;

    ~Driver() {
        const char* path = getenv("CUDA_EMULATION_COUNTS");
        FILE* file = path ? fopen(path, "w") : nullptr;
        if (!file) return;
        for (const auto& [name, count] : calls) fprintf(file, "%s %llu\n", name.c_str(), count);
        fprintf(file, "launches %llu\nthread_blocks %llu\nbarriers %llu\n", counts.launches, counts.thread_blocks,
                counts.barriers);
        fclose(file);
    }

    // Whether all of a run is page-locked.
    bool is_pinned(void* at, size_t bytes) const {
        auto after = pinned.upper_bound(at);
        if (after == pinned.begin()) return false;
        const auto [start, size] = *std::prev(after);
        return (char*)at + bytes <= (char*)start + size;
    }

    // Counts the call; the error that it must fail with.
    Result enter(const char* name) {
        const unsigned long long number = ++calls[name];
        char call[64];
        unsigned long long which;
        Result error;
        const char* fault = getenv("CUDA_EMULATION_FAULT");
        if (fault && sscanf(fault, "%63[^:]:%llu:%d", call, &which, &error) == 3 && number == which &&
            strcmp(call, name) == 0) {
            if (error >= FIRST_STICKY) lost = error;
            return error;
        }
        return lost;
    }
};

Driver driver;
int handle; // what stands for a device's context and its streams
thread_local void* context;

} // namespace

#define CALL(name, ...)                                                                                                \
    extern "C" __attribute__((visibility("default"))) Result name(__VA_ARGS__) {                                       \
        const std::lock_guard<std::recursive_mutex> guard(driver.lock);                                                \
        if (const Result error = driver.enter(#name)) return error;
#define END                                                                                                            \
    return SUCCESS;                                                                                                    \
    }

// --- the device ---

CALL(cuInit, unsigned) END
CALL(cuDriverGetVersion, int* version)
    const char* text = getenv("CUDA_EMULATION_VERSION");
    *version = text ? atoi(text) : 12000;
END
CALL(cuDeviceGetCount, int* count) *count = 1; END
CALL(cuDeviceGet, int* device, int ordinal)
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
END
CALL(cuDeviceGetName, char* name, int size, int) snprintf(name, size, "emulated on the CPU"); END
CALL(cuDeviceTotalMem_v2, size_t* bytes, int) *bytes = memory_in_all(); END
CALL(cuDeviceGetAttribute, int* value, int attribute, int)
    const bool pools = !getenv("CUDA_EMULATION_NO_POOLS");
    switch (attribute) {
    case 1: *value = 1024; break;  // threads of a thread block
    case 16: *value = 2; break;    // multiprocessors
    case 75: *value = 6; break;    // compute capability
    case 76: *value = 0; break;
    case 115: *value = pools; break; // stream-ordered allocation
    default: fail("device attribute %d is not known here", attribute);
    }
END
CALL(cuMemGetInfo_v2, size_t* unused, size_t* all)
    *all = memory_in_all();
    *unused = *all - memory_in_use();
END

// --- contexts, streams, events ---

CALL(cuDevicePrimaryCtxRetain, void** out, int) *out = &handle; END
CALL(cuDevicePrimaryCtxRelease_v2, int) END
CALL(cuCtxGetCurrent, void** out) *out = context; END
CALL(cuCtxSetCurrent, void* in) context = in; END
CALL(cuCtxSynchronize)
    arrive();
    check_memory();
END
CALL(cuStreamCreate, void** stream, unsigned) *stream = new int; END
CALL(cuStreamDestroy_v2, void* stream) delete (int*)stream; END
CALL(cuStreamSynchronize, void*)
    arrive();
    check_memory();
END
CALL(cuStreamWaitEvent, void*, void*, unsigned) END
CALL(cuEventCreate, void** event, unsigned) *event = new Event; END
CALL(cuEventDestroy_v2, void* event) delete (Event*)event; END
CALL(cuEventRecord, void* event, void*) record(*(Event*)event); END
CALL(cuEventQuery, void* event)
    if (!is_complete(*(Event*)event)) return NOT_READY;
END
CALL(cuEventSynchronize, void*) arrive(); END

// --- memory ---

static Result allocate_at(Address* out, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    *out = (Address)allocate(bytes);
    return *out ? SUCCESS : OUT_OF_MEMORY;
}
CALL(cuMemAlloc_v2, Address* out, size_t bytes) return allocate_at(out, bytes); END
CALL(cuMemAllocAsync, Address* out, size_t bytes, void*) return allocate_at(out, bytes); END
CALL(cuMemFree_v2, Address at) release((void*)at); END
CALL(cuMemFreeAsync, Address at, void*) release((void*)at); END
CALL(cuMemHostAlloc, void** out, size_t bytes, unsigned)
    *out = malloc(bytes);
    driver.pinned[*out] = bytes;
END
CALL(cuMemFreeHost, void* at)
    const auto found = driver.pinned.find(at);
    if (found == driver.pinned.end()) fail("host memory is freed that was not allocated as pinned");
    check_host_run(at, found->second);
    driver.pinned.erase(found);
    free(at);
END
CALL(cuMemcpyHtoDAsync_v2, Address to, const void* from, size_t bytes, void*)
    check_run((void*)to, bytes, "a copy from the host");
    memcpy((void*)to, from, bytes);
END
CALL(cuMemcpyDtoHAsync_v2, void* to, Address from, size_t bytes, void*)
    check_run((void*)from, bytes, "a copy to the host");
    copy_to_host(to, (void*)from, bytes);
    if (!driver.is_pinned(to, bytes)) arrive(); // the driver waits where memory is not page-locked
END
CALL(cuMemcpyDtoDAsync_v2, Address to, Address from, size_t bytes, void*)
    check_run((void*)from, bytes, "a copy's source");
    check_run((void*)to, bytes, "a copy's target");
    memmove((void*)to, (void*)from, bytes);
END
CALL(cuMemsetD8Async, Address at, unsigned char value, size_t bytes, void*)
    check_run((void*)at, bytes, "a memset");
    memset((void*)at, value, bytes);
END

// --- kernels ---

CALL(cuModuleLoadData, void** module, const void* image)
    if (!strstr((const char*)image, ".target")) return INVALID_PTX;
    *module = new Module{(const char*)image};
END
CALL(cuModuleUnload, void* module) delete (Module*)module; END
CALL(cuModuleGetFunction, void** function, void* module, const char* name)
    const std::string entry = std::string(".entry ") + name + "(";
    if (((Module*)module)->ptx.find(entry) == std::string::npos) return NOT_FOUND;
    const Entry* found = find_kernel(name);
    if (!found) return NOT_FOUND;
    *function = (void*)found;
END
CALL(cuLaunchKernel, void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
     unsigned shared_bytes, void*, void** parameters, void**)
    if (gx == 0 || gx > 0x7fffffffu || bx == 0 || bx > 1024) return INVALID_VALUE;
    if (gy != 1 || gz != 1 || by != 1 || bz != 1 || shared_bytes != 0) fail("a launch of a kind that is not known here");
    launch({((Entry*)function)->run, parameters[0]}, gx, bx);
END

// --- messages ---

extern "C" __attribute__((visibility("default"))) Result cuGetErrorName(int error, const char** name) {
    static thread_local char text[32];
    snprintf(text, sizeof text, "CUDA error %d", error);
    *name = text;
    return SUCCESS;
}
extern "C" __attribute__((visibility("default"))) Result cuGetErrorString(int error, const char** text) {
    return cuGetErrorName(error, text);
}
