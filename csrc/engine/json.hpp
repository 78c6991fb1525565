// A strict reader of JSON (RFC 8259) for headers of files that may be broken or hostile: in one pass, without
// recursion, with memory in proportion to the text. Refused are keys that come twice, deep nesting, bytes that are not
// UTF-8, and anything after the end.
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mdgnn::engine {

class Json;

// A value in a text; valid as long as its Json. `what` names it in the sentences of the std::invalid_argument that is
// thrown where it is of another kind.
class JsonValue {
  public:
    JsonValue(const Json& json, std::uint32_t node) : json_(&json), node_(node) {}

    bool is_null() const;
    std::string_view text() const;  // as it stands there
    std::int64_t integer(const std::string& what) const;
    double number(const std::string& what) const;  // finite
    std::string string(const std::string& what) const;
    std::vector<JsonValue> items(const std::string& what) const;
    std::vector<std::pair<std::string, JsonValue>> members(const std::string& what) const;
    JsonValue at(std::string_view key, const std::string& what) const;

    // Those of an object that has exactly these keys, in their order.
    template <std::size_t n>
    std::array<JsonValue, n> entries(const std::array<const char*, n>& keys, const std::string& what) const {
        return entries(keys, what, std::make_index_sequence<n>());
    }

  private:
    template <std::size_t n, std::size_t... k>
    std::array<JsonValue, n> entries(const std::array<const char*, n>& keys, const std::string& what,
                                     std::index_sequence<k...>) const {
        if (members(what).size() > n) only(keys.data(), n, what);
        return {at(keys[k], what)...};
    }
    void only(const char* const* keys, std::size_t n, const std::string& what) const;
    [[noreturn]] void refuse(const std::string& what, const char* kind) const;

    const Json* json_;
    std::uint32_t node_;
};

class Json {
  public:
    // Throws std::invalid_argument, with a sentence, unless the text is one value of JSON.
    explicit Json(std::string text);
    Json(const Json&) = delete;
    Json& operator=(const Json&) = delete;

    JsonValue root() const { return {*this, 0}; }

  private:
    friend class JsonValue;
    friend class JsonReader;

    enum class Kind : std::uint8_t { null, boolean, number, string, array, object };

    // Where it stands in the text, and the node after all that are in it. Keys are nodes before those of their values.
    struct Node {
        std::uint32_t begin = 0, end = 0, after = 0;
        Kind kind = Kind::null;
    };

    std::string text_;
    std::vector<Node> nodes_;
};

// For a sentence: the text, or its beginning, without what would garble it.
std::string printable(std::string_view text, std::size_t most = 60);

}  // namespace mdgnn::engine
