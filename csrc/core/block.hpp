// Memory for large results. What the caller frees is kept for the next result, so that a list made anew at every step
// does not pay for fresh pages, which cost more than the list itself. Kept memory is offered to the system meanwhile
// (MADV_FREE), but for 64 MB of blocks below 4 MB: it takes it when it runs short. Elsewhere than on Linux this is
// malloc.
#pragma once

#include <cstddef>

namespace mdgnn {

// Below this it is malloc's, which reuses memory itself.
constexpr std::size_t kSmallestBlock = std::size_t{1} << 16;

// Contents are not set. Throws std::bad_alloc.
void* allocate_block(std::size_t bytes);
void free_block(void* block) noexcept;

}  // namespace mdgnn
