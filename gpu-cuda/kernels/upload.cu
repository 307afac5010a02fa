// Writes words that came with the launch. The driver keeps a launch's arguments by itself: no host memory has to live until
// the stream comes to it, and nothing waits.
#include "launch.cuh"

// With the two words before them just below what a launch can bring to any device.
const u64 UPLOAD_WORDS = 500;

struct Upload {
    u64* to;
    u64 count;
    u64 words[UPLOAD_WORDS];
};

extern "C" __global__ void upload(Upload a) {
    for (u64 i = first_item(); i < a.count; i += all_threads()) a.to[i] = a.words[i];
}
