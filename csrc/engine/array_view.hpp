// Where arrays stand in memory while a block of rows is treated.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/program.hpp"

namespace mdgnn::engine {

// Rows of components of channels. Channels follow upon each other; strides are in numbers.
template <class T>
struct ArrayView {
    T* data = nullptr;
    std::int64_t row_stride = 0, component_stride = 0;
    Shape shape;

    T* at(std::int64_t row, std::int64_t component) const {
        return data + row * row_stride + component * component_stride;
    }
    operator ArrayView<const T>() const { return {data, row_stride, component_stride, shape}; }
};

// An array stands in memory for all rows or, where one phase alone sees it, in that of a block. In numbers per row.
struct Place {
    bool local = false;
    std::int64_t at = -1;  // -1: nowhere
};

// Rows that a thread treats at a time: of atoms, or of knots of a table.
template <class T>
struct Block {
    const std::vector<Array>* arrays = nullptr;
    const std::vector<Place>*values = nullptr, *gradients = nullptr;  // of tables: derivatives with respect to r
    std::int64_t first = 0, n_rows = 0;
    T *all = nullptr, *local = nullptr;
    std::int64_t room_of_all = 0, room_of_local = 0;  // rows that each place has room for

    ArrayView<T> value(int v) const { return view(v, (*values)[v]); }
    ArrayView<T> gradient(int v) const { return view(v, (*gradients)[v]); }

  private:
    ArrayView<T> view(int v, const Place& place) const {
        const Array& array = (*arrays)[v];
        const Shape& stored = array.base < 0 ? array.shape : (*arrays)[array.base].shape;
        T* const start =
            place.local ? local + place.at * room_of_local : all + place.at * room_of_all + first * stored.size();
        return {start + array.first_component * stored.channels + array.first_channel, stored.size(), stored.channels,
                array.shape};
    }
};

}  // namespace mdgnn::engine
