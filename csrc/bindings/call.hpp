// Calls of kernels from Python by named arguments, with Python's C API alone: pybind11's headers take longer to compile
// than the kernels. An op's parameters are structs that list their fields (`fields`); the visitor below fills them.
//
// Python says f(itemsize=.., field=.., .., context=(threads, device, stream)), in the declared order, checked by name.
// An array is a tensor, whose `dtype` and `shape` are checked where its address is taken (`data_ptr`), of forward,
// backward and double backward alike: kernels would read beyond what does not fit. What they write, which ops allocate
// by what has been checked, is taken as it is. Layout and device are up to Python. None is an absent array.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/shapes.hpp"
#include "core/view.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::bindings {

// The exception is Python's, set already.
struct PythonError {};

// A kernel as Python's function: its name, the names of its arguments in C++ but for the context, and the shapes of all
// that Python gives, in order; none of what has no shape. The signature is what `inspect.signature` reads.
struct Kernel {
    const char* name;
    std::vector<const char*> arguments;
    std::vector<Shape> shapes;
    std::string signature;
    PyMethodDef method;
};

struct Release {
    void operator()(PyObject* object) const { Py_XDECREF(object); }
};
using Owned = std::unique_ptr<PyObject, Release>;

// torch's dtype of numbers of type T.
template <class T>
PyObject* dtype_of() {
    static PyObject* const dtype = [] {
        constexpr bool kReal = std::is_same_v<T, float> || std::is_same_v<T, double>;
        static_assert(kReal || std::is_same_v<T, std::int64_t> || std::is_same_v<T, bool>);
        const char* const name = kReal                     ? sizeof(T) == 4 ? "float32" : "float64"
                                 : std::is_same_v<T, bool> ? "bool"
                                                           : "int64";
        const Owned torch(PyImport_ImportModule("torch"));
        PyObject* dtype = torch ? PyObject_GetAttrString(torch.get(), name) : nullptr;
        if (!dtype) throw PythonError{};
        return dtype;
    }();
    return dtype;
}

// The arguments of one call, read in order.
class Arguments {
  public:
    Arguments(const Kernel& kernel, PyObject* const* values, PyObject* names)
        : kernel_(kernel), values_(values), names_(names), size_(names ? PyTuple_GET_SIZE(names) : 0) {}

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
        if (place_ != size_) wrong("no more arguments");
    }

  private:
    PyObject* next(const char* name) {
        const char* got = place_ < size_ ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(names_, place_)) : nullptr;
        const std::size_t n = std::strlen(prefix_);
        if (!got || std::strncmp(got, prefix_, n) != 0 || std::strcmp(got + n, name) != 0)
            wrong(("the argument " + std::string(prefix_) + name).c_str());
        return values_[place_++];
    }

    [[noreturn]] void wrong(const char* expected) const {
        if (place_ < size_)
            PyErr_Format(PyExc_TypeError, "%s: expected %s, got %U", kernel_.name, expected,
                         PyTuple_GET_ITEM(names_, place_));
        else
            PyErr_Format(PyExc_TypeError, "%s: expected %s, got none", kernel_.name, expected);
        throw PythonError{};
    }

    // Puts the kernel and the argument before Python's own sentences; ours, which are ValueErrors, have them.
    [[gnu::noinline]] void name_argument(const char* name) const {
        if (PyErr_ExceptionMatches(PyExc_ValueError)) return;
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_Format(type, "%s: %s%s: %S", kernel_.name, prefix_, name, value ? value : type);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }

    static void check() {
        if (PyErr_Occurred()) throw PythonError{};
    }

    // Of the argument that was taken last.
    const Shape& shape() const { return kernel_.shapes[static_cast<std::size_t>(place_ - 1)]; }

    [[noreturn]] void refuse(PyObject* dtype, const std::string& got) const {
        const std::string text = (shape().any ? "" : "shape ") + sizes_.text(shape());
        PyErr_Format(PyExc_ValueError, "%s: expected %U of %s %S, got %s", kernel_.name,
                     PyTuple_GET_ITEM(names_, place_ - 1), text.c_str(), dtype, got.c_str());
        throw PythonError{};
    }

    template <class I>
    std::enable_if_t<std::is_integral_v<I> || std::is_enum_v<I>> read(PyObject* value, I& to) {
        const std::int64_t n = PyLong_AsLongLong(value);
        check();
        to = static_cast<I>(n);
        if (!shape().axes.empty() && !sizes_.fit(shape().axes[0], n)) {
            PyErr_Format(PyExc_ValueError, "%s: expected %U of another size, got %lld", kernel_.name,
                         PyTuple_GET_ITEM(names_, place_ - 1), static_cast<long long>(n));
            throw PythonError{};
        }
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
    static void* data_of(PyObject* tensor) {
        static PyObject* const method = PyUnicode_InternFromString("data_ptr");
        PyObject* integer = PyObject_CallMethodNoArgs(tensor, method);
        if (!integer) throw PythonError{};
        void* address = PyLong_AsVoidPtr(integer);
        Py_DECREF(integer);
        check();
        return address ? address : reinterpret_cast<void*>(1);
    }

    static Owned attribute(PyObject* tensor, PyObject* name) {
        Owned value(PyObject_GetAttr(tensor, name));
        if (!value) throw PythonError{};
        return value;
    }

    // The address of a tensor of dtype and shape as declared, and its sizes; null where it is absent, which has none.
    template <class T>
    T* array_of(PyObject* tensor, std::array<std::int64_t, 4>& sizes) {
        static PyObject *const of_dtype = PyUnicode_InternFromString("dtype"), *const of_shape =
                                                                                   PyUnicode_InternFromString("shape");
        if (tensor == Py_None) return nullptr;
        PyObject* const expected = dtype_of<std::remove_const_t<T>>();
        const Owned dtype = attribute(tensor, of_dtype), axes = attribute(tensor, of_shape);
        const Py_ssize_t n = PyTuple_Check(axes.get()) ? PyTuple_GET_SIZE(axes.get()) : 0;
        std::int64_t product = 1;
        for (Py_ssize_t k = 0; k < n; ++k) {
            const std::int64_t size = PyLong_AsLongLong(PyTuple_GET_ITEM(axes.get(), k));
            product *= size;
            if (k < 4) sizes[k] = size;
        }
        check();
        const bool fits = shape().any ? sizes_.fit(shape().axes[0], product)
                                      : n <= 4 && sizes_.fit(shape(), {sizes.data(), static_cast<std::size_t>(n)});
        if (dtype.get() != expected || !fits) {
            const Owned plain(PyTuple_GetSlice(axes.get(), 0, n));  // not "torch.Size([4, 3])"
            const Owned got(plain ? PyUnicode_FromFormat("%S %S", plain.get(), dtype.get()) : nullptr);
            if (!got) throw PythonError{};
            refuse(expected, PyUnicode_AsUTF8(got.get()));
        }
        return static_cast<T*>(data_of(tensor));
    }

    // Memory without a shape.
    static void read(PyObject* value, void*& to) { to = value == Py_None ? nullptr : data_of(value); }

    template <class T>
    void read(PyObject* value, T*& to) {
        std::array<std::int64_t, 4> sizes;
        if constexpr (std::is_const_v<T>)
            to = array_of<T>(value, sizes);
        else
            to = value == Py_None ? nullptr : static_cast<T*>(data_of(value));
    }

    // The first axis, and all others as columns.
    template <class T>
    void read(PyObject* value, Matrix<T>& to) {
        std::array<std::int64_t, 4> sizes;
        to = {array_of<T>(value, sizes), 0, 0};
        if (!to) return;
        to.rows = sizes[0], to.cols = 1;
        for (std::size_t k = 1; k < shape().axes.size(); ++k) to.cols *= sizes[k];
    }

    static PyObject* item(PyObject* value, Py_ssize_t k, Py_ssize_t size) {
        if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != size) {
            PyErr_Format(PyExc_TypeError, "expected a tuple of %zd, got %s", size, Py_TYPE(value)->tp_name);
            throw PythonError{};
        }
        return PyTuple_GET_ITEM(value, k);
    }

    // (row_ptr, index, edge, n_rows, n_entries, n_values), or None; the last two are -1 where they are not known. The
    // arrays have been checked where their addresses were taken.
    void read(PyObject* value, Rows& to) {
        to = {};
        if (value == Py_None) return;
        to.row_ptr = static_cast<const std::int64_t*>(address_of(item(value, 0, 6)));
        to.index = static_cast<const std::int64_t*>(address_of(item(value, 1, 6)));
        to.edge = static_cast<const std::int64_t*>(address_of(item(value, 2, 6)));
        std::int64_t n[3];
        for (Py_ssize_t k = 0; k < 3; ++k) n[k] = PyLong_AsLongLong(item(value, 3 + k, 6));
        check();
        to.n_rows = n[0];
        const std::vector<Size>& of = shape().axes;  // rows, entries, and values that these take
        bool good = sizes_.fit(of[0], n[0]) && (n[1] < 0 || sizes_.fit(of[1], n[1]));
        if (good && n[2] >= 0) good = to.index ? sizes_.fit_minimum(of[2], n[2]) : sizes_.fit(of[2], n[2]);
        if (!good) {
            PyErr_Format(PyExc_ValueError, "%s: expected %U with (rows, entries, values) %s, got (%lld, %lld, %lld)",
                         kernel_.name, PyTuple_GET_ITEM(names_, place_ - 1), sizes_.text(shape()).c_str(),
                         static_cast<long long>(n[0]), static_cast<long long>(n[1]), static_cast<long long>(n[2]));
            throw PythonError{};
        }
    }

    // (coefficients, cutoff)
    template <class T>
    void read(PyObject* value, RadialTable<T>& to) {
        std::array<std::int64_t, 4> sizes;
        to.coefficients = array_of<const T>(item(value, 0, 2), sizes);
        const double cutoff = PyFloat_AsDouble(item(value, 1, 2));
        check();
        if (!to.coefficients || sizes[0] < 1 || !(cutoff > 0))
            throw std::invalid_argument(std::string(kernel_.name) +
                                        ": expected a table of one interval or more and a positive cutoff");
        to.n_intervals = sizes[0], to.width = sizes[2];
        to.cutoff = static_cast<T>(cutoff);
        to.per_unit = static_cast<T>(static_cast<double>(to.n_intervals) / cutoff);
    }

    // (memory or None, n_edges)
    static void read(PyObject* value, TableWorkspace& to) {
        read(item(value, 0, 2), to.memory);
        to.n_edges = PyLong_AsLongLong(item(value, 1, 2));
        check();
    }

    // (n_threads, device, stream)
    static void read(PyObject* value, Context& to) {
        to.n_threads = static_cast<int>(PyLong_AsLong(item(value, 0, 3)));
        to.device = static_cast<int>(PyLong_AsLong(item(value, 1, 3)));
        to.stream = address_of(item(value, 2, 3));
        check();
    }

    const Kernel& kernel_;
    Sizes sizes_;
    const char* prefix_ = "";
    PyObject* const* values_;
    PyObject* names_;
    Py_ssize_t size_, place_ = 0;
};

template <class T>
constexpr bool kHasShape = std::is_same_v<T, Rows>;
template <class T>
constexpr bool kHasShape<T*> = !std::is_void_v<T>;
template <class T>
constexpr bool kHasShape<Matrix<T>> = true;
template <class T>
constexpr bool kHasShape<RadialTable<T>> = true;

// Visits the arguments of a kernel as `Arguments` does: their full names, and whether they have a shape.
struct ArgumentNames {
    std::vector<std::pair<std::string, bool>> names;
    std::string prefix;

    template <class T>
    void operator()(const char* name, T& field) {
        if constexpr (requires { field.fields(*this); }) {
            prefix = name;
            field.fields(*this);
            prefix = "";
        } else {
            names.emplace_back(prefix + name, kHasShape<T>);
        }
    }
};

// Calls f(name of the argument, the argument).
template <class... Args, class F>
void each_argument(std::tuple<Args...>& values, const std::vector<const char*>& names, F&& f) {
    std::size_t k = 0;
    const auto name = [&] { return k < names.size() ? names[k++] : "context"; };
    std::apply([&](auto&... value) { (f(name(), value), ...); }, values);
}

template <class... Args>
void call(void (*f)(Args...), Arguments& arguments, const Kernel& kernel) {
    std::tuple<std::decay_t<Args>...> values;
    each_argument(values, kernel.arguments, arguments);
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
        Arguments arguments(kernel, values, names);
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

// Shapes of an op's arrays by name, for all of its functions: a gradient, or a result of another name, has that of what
// its name goes on with. Of edges and rows: how many rows, and how many entries.
using Shapes = std::map<std::string, std::string>;

inline Shape find_shape(const Shapes& shapes, const std::string& name) {
    for (const std::string prefix : {"", "out_grad_", "out_", "grad2_", "grad_"})
        if (name.compare(0, prefix.size(), prefix) == 0)
            if (const auto at = shapes.find(name.substr(prefix.size())); at != shapes.end()) return Shape(at->second);
    return {};
}

// All but itemsize, which comes first.
template <class... Args>
ArgumentNames names_of(void (*)(Args...), const std::vector<const char*>& arguments) {
    std::tuple<std::decay_t<Args>...> values;
    ArgumentNames visit;
    each_argument(values, arguments, visit);
    return visit;
}

inline std::vector<Shape> shapes_of(const ArgumentNames& arguments, const Shapes& shapes) {
    std::vector<Shape> all(1);  // of itemsize
    for (const auto& [name, has_shape] : arguments.names) {
        all.push_back(find_shape(shapes, name));
        if (has_shape && all.back().axes.empty()) throw std::logic_error("expected the shape of the array " + name);
    }
    return all;
}

// The first parameter stands for what the function is bound to.
inline std::string signature_of(const char* name, const ArgumentNames& arguments) {
    std::string text = std::string(name) + "($self, *, itemsize";
    for (const auto& [argument, has_shape] : arguments.names) text += ", " + argument;
    return text + ")\n--\n\n";
}

// Adds a kernel of float and double to a module. `arguments`: the names of its parameters in C++ but for the context;
// of a struct with fields what their names begin with.
template <auto kFloat, auto kDouble>
void add(PyObject* module, const char* name, std::vector<const char*> arguments, const Shapes& shapes) {
    const auto function = reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&enter<kFloat, kDouble>));
    const ArgumentNames names = names_of(kFloat, arguments);
    auto* kernel = new Kernel{name, std::move(arguments), shapes_of(names, shapes), signature_of(name, names), {}};
    kernel->method = {name, function, METH_FASTCALL | METH_KEYWORDS, kernel->signature.c_str()};
    PyObject* self = PyCapsule_New(kernel, nullptr, nullptr);  // the module lives as long as the process
    PyObject* method = self ? PyCFunction_NewEx(&kernel->method, self, nullptr) : nullptr;
    if (!method || PyModule_AddObject(module, name, method) != 0) throw std::runtime_error("cannot add a kernel");
    Py_DECREF(self);
}

}  // namespace mdgnn::bindings
