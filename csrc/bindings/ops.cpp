// The kernels of all ops by name. Compiled twice: into _C for the CPU and, with MDGNN_CUDA_MODULE, into _C_cuda.
#include "bindings/ops.hpp"

#include "bindings/call.hpp"
#include "ops/cfconv/cfconv.hpp"
#include "ops/concat_message/concat_message.hpp"
#include "ops/concat_message/table.hpp"
#include "ops/concat_message_linear/concat_message_linear.hpp"
#include "ops/edge_basis/edge_basis.hpp"
#include "ops/force_virial/force_virial.hpp"
#include "ops/painn_message/painn_message.hpp"
#include "ops/polar/polar.hpp"
#include "ops/scatter_add/scatter_add.hpp"
#include "ops/silu/silu.hpp"

#ifdef MDGNN_CUDA_MODULE
namespace device = mdgnn::cuda;
#else
namespace device = mdgnn::cpu;
#endif

// Of a kernel, in namespace `of`, that is a template of the floating type: its name, then those of its parameters; of a
// struct what the names of its fields begin with. Their shapes are those that stand before it.
#define MDGNN_ADD(of, kernel, ...) add<&of::kernel<float>, &of::kernel<double>>(module, #kernel, {__VA_ARGS__}, shapes)

namespace mdgnn::bindings {

void add_ops(PyObject* module) {
    Shapes shapes;

    shapes = {{"rows", "N E N"},         {"columns", "N E N"}, {"x", "N C"},   {"table", "G 4 C"},
              {"coefficients", "G 4 C"}, {"r", "E"},           {"out", "N C"}, {"grad", "N C"}};
    MDGNN_ADD(device, cfconv, "", "out");
    MDGNN_ADD(device, cfconv_backward, "", "grad", "out_x", "out_r", "out_coefficients");
    MDGNN_ADD(device, cfconv_double_backward, "", "grad", "grad2_x", "grad2_r", "out_grad", "out_x", "out_r",
              "out_coefficients");

    shapes = {{"rows", "N E N"}, {"columns", "N E E"}, {"edge_part", "E H"}, {"ends", "N 2H"},
              {"envelope", "E"}, {"out", "N H"},       {"grad", "N H"}};
    MDGNN_ADD(device, concat_message, "", "out");
    MDGNN_ADD(device, concat_message_backward, "", "grad", "out_edge_part", "out_ends", "out_envelope");
    MDGNN_ADD(device, concat_message_double_backward, "", "grad", "grad2_", "out_grad", "out_edge_part", "out_ends",
              "out_envelope");

    shapes = {
        {"rows", "N E N"}, {"columns", "N E N"}, {"ends", "N 2H"},    {"table", "G 4 H+1"}, {"coefficients", "G 4 H+1"},
        {"r", "E"},        {"of_edges", "E 4"},  {"messages", "N H"}, {"s", "N 1"},         {"silu_grads", "N H"}};
    MDGNN_ADD(device, concat_message_table, "", "out_");
    MDGNN_ADD(device, concat_message_table_backward, "", "grad_", "out_");
    MDGNN_ADD(device, concat_message_table_double_backward, "", "grad_", "grad2_", "out_grad_", "out_");

    shapes = {{"rows", "N E N"}, {"columns", "N E E"}, {"vectors", "E 3"}, {"gradients", "E 3"},
              {"forces", "N 3"}, {"virials", "N 3 3"}, {"out", "E 3"}};
    MDGNN_ADD(device, force_virial, "", "gradients", "forces", "virials");
    MDGNN_ADD(device, force_virial_backward, "", "grad_forces", "grad_virials", "out");

    shapes = {{"rows", "N E N"},          {"columns", "N E N"}, {"x", "N 3F"},   {"v", "N 3 F"}, {"table", "G 4 3F"},
              {"coefficients", "G 4 3F"}, {"r", "E"},           {"unit", "E 3"}, {"s", "N F"}};
    MDGNN_ADD(device, painn_message, "", "out_");
    MDGNN_ADD(device, painn_message_backward, "", "grad_", "out_");
    MDGNN_ADD(device, painn_message_double_backward, "", "grad_", "grad2_", "out_grad_", "out_");

    shapes = {{"rows", "N E M"}, {"columns", "M E N"}, {"values", "M F"}, {"weight", "E"},
              {"out", "N F"},    {"grad", "N F"},      {"argmax", "N F"}};
    MDGNN_ADD(device, scatter_add, "", "out", "argmax");
    MDGNN_ADD(device, scatter_add_backward, "", "grad", "argmax", "out_values", "out_weight");
    MDGNN_ADD(device, scatter_add_double_backward, "", "grad", "grad2_values", "grad2_weight", "out_grad", "out_values",
              "out_weight");

#ifndef MDGNN_CUDA_MODULE
    shapes = {{"rows", "N E N"}, {"columns", "N E N"}, {"features", "E B"}, {"weight", "H B"},    {"ends", "N 2H"},
              {"envelope", "E"}, {"out", "N H"},       {"grad", "N H"},     {"silu_grads", "N H"}};
    MDGNN_ADD(cpu, concat_message_linear, "", "out", "out_silu_grads");
    MDGNN_ADD(cpu, concat_message_linear_backward, "", "grad", "out_");
    MDGNN_ADD(cpu, concat_message_linear_double_backward, "", "grad", "grad2_", "out_grad", "out_");

    shapes = {{"vectors", "E 3"}, {"n_edges", "E"}, {"centers", "B"}, {"n_basis", "B"},
              {"distances", "E"}, {"basis", "E B"}, {"grad2", "E 3"}, {"out", "E 3"}};
    MDGNN_ADD(cpu, edge_basis, "", "distances", "basis");
    MDGNN_ADD(cpu, edge_basis_backward, "", "grad_distances", "grad_basis", "out");
    MDGNN_ADD(cpu, edge_basis_double_backward, "", "grad2", "grad_distances", "grad_basis", "out_distances",
              "out_basis", "out");

    shapes = {{"vectors", "E 3"}, {"n_edges", "E"}, {"lengths", "E"},
              {"unit", "E 3"},    {"grad2", "E 3"}, {"out", "E 3"}};
    MDGNN_ADD(cpu, polar, "vectors", "n_edges", "lengths", "unit");
    MDGNN_ADD(cpu, polar_backward, "vectors", "n_edges", "grad_", "out");
    MDGNN_ADD(cpu, polar_double_backward, "vectors", "n_edges", "grad2", "grad_", "out_", "out");

    shapes = {{"n", "L"}, {"x", "*L"}, {"grad", "*L"}, {"grad2", "*L"}, {"out", "*L"}};
    MDGNN_ADD(cpu, silu, "n", "x", "out");
    MDGNN_ADD(cpu, silu_backward, "n", "grad", "x", "out");
    MDGNN_ADD(cpu, silu_double_backward, "n", "grad2", "grad", "x", "out");
#endif
}

}  // namespace mdgnn::bindings
