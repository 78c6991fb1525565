// The kernels of all ops, for a module of Python.
#pragma once

#include <Python.h>

namespace mdgnn::bindings {

void add_ops(PyObject* module);

}  // namespace mdgnn::bindings
