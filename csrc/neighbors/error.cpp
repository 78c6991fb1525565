// What is said when a search is refused, on every device.
#include <cstdio>

#include "neighbors/neighbors.hpp"

namespace mdgnn {

std::string in_words(double number) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", number);
    return text;
}

std::string neighbor_error(NeighborCode code, std::int64_t where, double cutoff, const std::string& got) {
    const std::string number = std::to_string(where);
    switch (code) {
        case NeighborCode::fine:
            return "";
        case NeighborCode::position:
            return "expected finite positions, got " + got + " for atom " + number;
        case NeighborCode::infinite_cutoff:
            return "expected a finite cutoff for a periodic system, got infinity";
        case NeighborCode::singular_cell:
            return "expected linearly independent, finite cell vectors on the periodic axes, got a singular cell" +
                   (where < 0 ? std::string() : " for structure " + number);
        case NeighborCode::overflow:
            return "expected positions and cells whose squares are finite numbers";
        case NeighborCode::long_cutoff:
            return "expected a cutoff of less than a million cells, got " + in_words(cutoff);
        case NeighborCode::many_images:
            return "expected a cell less skewed, a shorter cutoff or atoms nearer to the cell: within the cutoff and "
                   "its rounding lie " +
                   got + " images";
        case NeighborCode::far_atom:
            return "atom " + number + " lies more than a billion cells away from the cell";
    }
    return "a search for neighbours failed for an unknown reason, number " +
           std::to_string(static_cast<std::int64_t>(code));
}

}  // namespace mdgnn
