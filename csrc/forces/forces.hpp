// forces: from derivatives with respect to edge vectors to forces. D = r_j - r_i moves with +r_j and -r_i, so
//
//   out[i] = sum of gradients[k] over the edges k that i receives - the same over the edges that i sends.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn::cpu {

// rows: by receiver, without an index; columns: by sender, the index holds edges. gradients (E, 3); out (N, 3).
template <class T>
void forces(const Rows& rows, const Rows& columns, const T* gradients, double* out, const Context& context);

}  // namespace mdgnn::cpu
