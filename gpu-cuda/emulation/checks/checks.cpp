// Programs that are wrong, each in one way, and one that is right: what the emulation must say of them. The argument chooses.
#include "execution.h"
#include "memory.h"
#include "stream.h"

#include <cstdio>
#include <string>
#include <vector>

const unsigned THREADS = 256, BLOCKS = 5;

struct Sum {
    const unsigned* x;
    unsigned* sums;
};

static __device__ unsigned* shared_sums() {
    __shared__ unsigned sums[THREADS];
    return sums;
}

// Each thread block sums its run of x.
template <bool BARRIERS> __device__ void sum(const Sum& a) {
    unsigned *sums = shared_sums(), t = threadIdx.x;
    sums[t] = a.x[blockIdx.x * THREADS + t];
    if (BARRIERS) __syncthreads();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) sums[t] += sums[t + half];
        if (BARRIERS) __syncthreads();
    }
    if (t == 0) a.sums[blockIdx.x] = sums[0];
}
__global__ void with_barriers(Sum a) { sum<true>(a); }
__global__ void without_barriers(Sum a) { sum<false>(a); }

__global__ void divergent(Sum a) {
    if (threadIdx.x != 7) __syncthreads();
    a.sums[blockIdx.x] = 0;
}

// A sum that starts from what shared memory happens to hold.
__global__ void uninitialised(Sum a) {
    unsigned* sums = shared_sums();
    sums[threadIdx.x] += a.x[blockIdx.x * THREADS + threadIdx.x];
    __syncthreads();
    if (threadIdx.x != 0) return;
    unsigned total = 0;
    for (unsigned t = 0; t < THREADS; ++t) total += sums[t];
    a.sums[blockIdx.x] = total;
}

// 0 where all sums are right, else 1.
template <auto KERNEL> int launched() {
    std::vector<unsigned> x(BLOCKS * THREADS), sums(BLOCKS), want(BLOCKS);
    for (unsigned i = 0; i < x.size(); ++i) want[i / THREADS] += x[i] = i * 2654435761u;
    const Sum arguments = {x.data(), sums.data()};
    emulation::launch({emulation::Kernel<KERNEL>::run, &arguments}, BLOCKS, THREADS);
    return sums == want ? 0 : 1;
}

int main(int, char** arguments) {
    const std::string which = arguments[1];
    if (which == "right") return launched<with_barriers>();
    if (which == "missing barrier") return launched<without_barriers>();
    if (which == "divergent barrier") return launched<divergent>();
    if (which == "uninitialised") return launched<uninitialised>();
    char* x = (char*)emulation::allocate(1000);
    if (which == "past the end") x[1000] = 0, emulation::check_memory();
    if (which == "before") x[-1] = 0, emulation::release(x);
    if (which == "twice freed") emulation::release(x), emulation::release(x);
    if (which == "written after it was freed") emulation::release(x), x[999] = 0, emulation::check_memory();
    if (which == "copied past the end") emulation::check_run(x + 990, 11, "a copy");
    if (which == "copied from nowhere") emulation::check_run(&which, 1, "a copy");
    if (which == "late") { // what was not waited for is not there, and is after an event
        char host = 0;
        emulation::Event event;
        *x = 5;
        emulation::copy_to_host(&host, x, 1);
        emulation::record(event);
        const bool early = host == 5 || emulation::is_complete(event);
        return early || !emulation::is_complete(event) || host != 5;
    }
    if (which == "freed while a copy is on its way") {
        emulation::copy_to_host(x, x, 1000);
        emulation::check_host_run(x, 1000);
    }
    return 0;
}
