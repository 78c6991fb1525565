// Calls of kernels from Python by named arguments, with Python's C API alone: pybind11's headers take longer to compile
// than the kernels. An op's parameters are structs that list their fields (`fields`); the visitor below fills them.
//
// Python says f(itemsize=.., field=.., .., context=(threads, device, stream)), in the declared order, checked by name.
// An array is a tensor, which says where its data is (`data_ptr`) and its `shape`; dtype, layout and device are checked
// in Python. None is an absent array, an integer an address.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::bindings {

// The exception is Python's, set already.
struct PythonError {};

// The arguments of one call, read in order.
class Arguments {
  public:
    Arguments(const char* function, PyObject* const* values, PyObject* names)
        : function_(function), values_(values), names_(names), size_(names ? PyTuple_GET_SIZE(names) : 0) {}

    // A field, or the fields of a struct that lists them, whose names then begin with `name`.
    template <class T>
    void operator()(const char* name, T& field) {
        if constexpr (requires { field.fields(*this); }) {
            prefix_ = name;
            field.fields(*this);
            prefix_ = "";
        } else {
            PyObject* value = next(name);
            try {
                read(value, field);
            } catch (const PythonError&) {
                name_argument(name);
                throw;
            }
        }
    }

    void finish() const {
        if (place_ != size_) wrong("no more");
    }

  private:
    PyObject* next(const char* name) {
        const char* got = place_ < size_ ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(names_, place_)) : nullptr;
        const std::size_t n = std::strlen(prefix_);
        if (!got || std::strncmp(got, prefix_, n) != 0 || std::strcmp(got + n, name) != 0)
            wrong((prefix_ + std::string(name)).c_str());
        return values_[place_++];
    }

    [[noreturn]] void wrong(const char* expected) const {
        if (place_ < size_)
            PyErr_Format(PyExc_TypeError, "%s: expected the argument %s, got %U", function_, expected,
                         PyTuple_GET_ITEM(names_, place_));
        else
            PyErr_Format(PyExc_TypeError, "%s: expected the argument %s, got none", function_, expected);
        throw PythonError{};
    }

    // Puts the kernel and the argument before the sentence that Python's exception has.
    [[gnu::noinline]] void name_argument(const char* name) const {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_Format(type, "%s: %s%s: %S", function_, prefix_, name, value ? value : type);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }

    static void check() {
        if (PyErr_Occurred()) throw PythonError{};
    }

    template <class I>
    static std::enable_if_t<std::is_integral_v<I> || std::is_enum_v<I>> read(PyObject* value, I& to) {
        to = static_cast<I>(PyLong_AsLongLong(value));
        check();
    }

    static void read(PyObject* value, double& to) {
        to = PyFloat_AsDouble(value);
        check();
    }

    static void read(PyObject* value, float& to) {
        double wide = 0;
        read(value, wide);
        to = static_cast<float>(wide);
    }

    static void* address_of(PyObject* integer) {
        void* address = PyLong_AsVoidPtr(integer);
        check();
        return address;
    }

    // An empty tensor, whose address torch gives as 0, is not absent.
    static void* data_of(PyObject* value) {
        static PyObject* const method = PyUnicode_InternFromString("data_ptr");
        if (value == Py_None) return nullptr;
        if (PyLong_Check(value)) return address_of(value);
        PyObject* integer = PyObject_CallMethodNoArgs(value, method);
        if (!integer) throw PythonError{};
        void* address = PyLong_AsVoidPtr(integer);
        Py_DECREF(integer);
        check();
        return address ? address : reinterpret_cast<void*>(1);
    }

    // Calls f(number of axes, sizes).
    template <class F>
    static void shape_of(PyObject* tensor, F&& f) {
        static PyObject* const attribute = PyUnicode_InternFromString("shape");
        PyObject* shape = PyObject_GetAttr(tensor, attribute);
        if (!shape || !PyTuple_Check(shape) || PyTuple_GET_SIZE(shape) > 4) {
            Py_XDECREF(shape);
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "expected a tensor of at most four axes");
            throw PythonError{};
        }
        std::int64_t sizes[4] = {};
        const Py_ssize_t n = PyTuple_GET_SIZE(shape);
        for (Py_ssize_t k = 0; k < n; ++k) sizes[k] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape, k));
        Py_DECREF(shape);
        check();
        f(n, sizes);
    }

    template <class T>
    static void read(PyObject* value, T*& to) {
        to = static_cast<T*>(data_of(value));
    }

    // The first axis, and all others as columns.
    template <class T>
    static void read(PyObject* value, Matrix<T>& to) {
        to = {};
        if (value == Py_None) return;
        to.data = static_cast<T*>(data_of(value));
        shape_of(value, [&](Py_ssize_t n, const std::int64_t* sizes) {
            to.rows = sizes[0], to.cols = 1;
            for (Py_ssize_t k = 1; k < n; ++k) to.cols *= sizes[k];
        });
    }

    static PyObject* item(PyObject* value, Py_ssize_t k, Py_ssize_t size) {
        if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != size) {
            PyErr_Format(PyExc_TypeError, "expected a tuple of %zd, got %s", size, Py_TYPE(value)->tp_name);
            throw PythonError{};
        }
        return PyTuple_GET_ITEM(value, k);
    }

    // (row_ptr, index, edge, n_rows), or None
    static void read(PyObject* value, Rows& to) {
        to = {};
        if (value == Py_None) return;
        to.row_ptr = static_cast<const std::int64_t*>(address_of(item(value, 0, 4)));
        to.index = static_cast<const std::int64_t*>(address_of(item(value, 1, 4)));
        to.edge = static_cast<const std::int64_t*>(address_of(item(value, 2, 4)));
        read(item(value, 3, 4), to.n_rows);
    }

    // (coefficients, cutoff)
    template <class T>
    static void read(PyObject* value, RadialTable<T>& to) {
        PyObject* coefficients = item(value, 0, 2);
        double cutoff = 0;
        read(item(value, 1, 2), cutoff);
        to.coefficients = static_cast<const T*>(data_of(coefficients));
        shape_of(coefficients,
                 [&](Py_ssize_t, const std::int64_t* sizes) { to.n_intervals = sizes[0], to.width = sizes[2]; });
        to.cutoff = static_cast<T>(cutoff);
        to.per_unit = static_cast<T>(static_cast<double>(to.n_intervals) / cutoff);
    }

    // (memory or None, n_edges)
    static void read(PyObject* value, TableWorkspace& to) {
        to.memory = data_of(item(value, 0, 2));
        read(item(value, 1, 2), to.n_edges);
    }

    // (n_threads, device, stream)
    static void read(PyObject* value, Context& to) {
        read(item(value, 0, 3), to.n_threads);
        read(item(value, 1, 3), to.device);
        to.stream = address_of(item(value, 2, 3));
    }

    const char* function_;
    const char* prefix_ = "";
    PyObject* const* values_;
    PyObject* names_;
    Py_ssize_t size_, place_ = 0;
};

// A kernel as Python's function: its name, and the names of its arguments in C++ but for the context.
struct Kernel {
    const char* name;
    std::vector<const char*> arguments;
    PyMethodDef method;
};

template <class... Args>
void call(void (*f)(Args...), Arguments& arguments, const Kernel& kernel) {
    std::tuple<std::decay_t<Args>...> values;
    std::size_t k = 0;
    const auto name = [&] { return k < kernel.arguments.size() ? kernel.arguments[k++] : "context"; };
    std::apply([&](auto&... value) { (arguments(name(), value), ...); }, values);
    arguments.finish();
    std::exception_ptr error;
    Py_BEGIN_ALLOW_THREADS;
    try {
        std::apply(f, values);
    } catch (...) {
        error = std::current_exception();
    }
    Py_END_ALLOW_THREADS;
    if (error) std::rethrow_exception(error);
}

template <auto kFloat, auto kDouble>
PyObject* enter(PyObject* self, PyObject* const* values, Py_ssize_t n_positional, PyObject* names) {
    const Kernel& kernel = *static_cast<const Kernel*>(PyCapsule_GetPointer(self, nullptr));
    try {
        if (n_positional) throw std::invalid_argument(std::string(kernel.name) + ": expected arguments by name");
        Arguments arguments(kernel.name, values, names);
        int itemsize = 0;
        arguments("itemsize", itemsize);
        if (itemsize == 4)
            call(kFloat, arguments, kernel);
        else if (itemsize == 8)
            call(kDouble, arguments, kernel);
        else
            throw std::invalid_argument("expected float32 or float64, got a type of " + std::to_string(itemsize) +
                                        " bytes");
        Py_RETURN_NONE;
    } catch (const PythonError&) {
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::invalid_argument& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::out_of_range& error) {
        PyErr_SetString(PyExc_IndexError, error.what());
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

// Adds a kernel of float and double to a module. `arguments`: the names of its parameters in C++ but for the context;
// of a struct with fields what their names begin with.
template <auto kFloat, auto kDouble>
void add(PyObject* module, const char* name, std::vector<const char*> arguments) {
    const auto function = reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&enter<kFloat, kDouble>));
    auto* kernel = new Kernel{name, std::move(arguments), {name, function, METH_FASTCALL | METH_KEYWORDS, nullptr}};
    PyObject* self = PyCapsule_New(kernel, nullptr, nullptr);  // the module lives as long as the process
    PyObject* method = self ? PyCFunction_NewEx(&kernel->method, self, nullptr) : nullptr;
    if (!method || PyModule_AddObject(module, name, method) != 0) throw std::runtime_error("cannot add a kernel");
    Py_DECREF(self);
}

}  // namespace mdgnn::bindings
