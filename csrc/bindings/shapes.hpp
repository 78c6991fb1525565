// Shapes of a kernel's arrays in words, as mdgnn/ops/declaration.py has them: "N 3F" are two axes, of N and of 3 F. Of
// a letter the first array of a call that has it tells the size. "*L" is any shape of L numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace mdgnn::bindings {

// Of an axis: factor * letter + more, or without a letter `more` alone.
struct Size {
    std::int64_t factor = 1, more = 0;
    char letter = 0;
};

struct Shape {
    std::vector<Size> axes;
    bool any = false;  // the one size is that of all axes together

    Shape() = default;

    explicit Shape(const std::string& text) : any(text[0] == '*') {
        std::istringstream words(any ? text.substr(1) : text);
        for (std::string word; words >> word;) axes.push_back(size_of(word));
    }

  private:
    static Size size_of(const std::string& word) {
        Size size;
        std::size_t at = 0;
        const auto number = [&](std::int64_t otherwise) {
            const std::size_t begin = at;
            while (at < word.size() && std::isdigit(static_cast<unsigned char>(word[at]))) ++at;
            return at == begin ? otherwise : std::stoll(word.substr(begin, at - begin));
        };
        size.factor = number(1);
        if (at == word.size())
            size.more = size.factor;
        else
            size.letter = word[at++];
        if (at < word.size() && word[at] == '+') ++at, size.more = number(0);
        if (at != word.size() || (size.letter && (size.letter < 'A' || size.letter > 'Z')))
            throw std::logic_error("expected a size such as N, 3F, H+1 or 4, got " + word);
        return size;
    }
};

// The sizes that the arrays of one call have told so far.
class Sizes {
  public:
    Sizes() { known_.fill(-1), minimum_.fill(0); }

    bool fit(const Size& size, std::int64_t n) {
        if (!size.letter) return n == size.more;
        std::int64_t& known = known_[static_cast<std::size_t>(size.letter - 'A')];
        if (known < 0 && n >= size.more && (n - size.more) % size.factor == 0) known = (n - size.more) / size.factor;
        return known >= minimum_[static_cast<std::size_t>(size.letter - 'A')] && n == size.factor * known + size.more;
    }

    // Whether a letter may be n or more; what tells its size later must say so too.
    bool fit_minimum(const Size& size, std::int64_t n) {
        const auto at = static_cast<std::size_t>(size.letter - 'A');
        minimum_[at] = std::max(minimum_[at], n);
        return known_[at] < 0 || known_[at] >= n;
    }

    bool fit(const Shape& shape, std::span<const std::int64_t> sizes) {
        if (shape.any) {
            std::int64_t all = 1;
            for (const std::int64_t n : sizes) all *= n;
            return fit(shape.axes[0], all);
        }
        if (sizes.size() != shape.axes.size()) return false;
        for (std::size_t k = 0; k < sizes.size(); ++k)
            if (!fit(shape.axes[k], sizes[k])) return false;
        return true;
    }

    std::string text(const Shape& shape) const {
        std::string all;
        for (const Size& size : shape.axes) all += (all.empty() ? "" : ", ") + text(size);
        return shape.any ? all + " numbers" : "(" + all + (shape.axes.size() == 1 ? ",)" : ")");
    }

  private:
    std::string text(const Size& size) const {
        if (!size.letter) return std::to_string(size.more);
        const std::int64_t known = known_[static_cast<std::size_t>(size.letter - 'A')];
        if (known >= 0) return std::to_string(size.factor * known + size.more);
        return (size.factor > 1 ? std::to_string(size.factor) + " " : "") + size.letter +
               (size.more ? " + " + std::to_string(size.more) : "");
    }

    std::array<std::int64_t, 26> known_, minimum_;
};

}  // namespace mdgnn::bindings
