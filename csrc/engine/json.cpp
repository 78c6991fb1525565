#include "engine/json.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <locale>
#include <sstream>

namespace mdgnn::engine {
namespace {

constexpr std::size_t kDeepest = 64;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Bytes of the UTF-8 character that the text begins with; 0: it begins with none.
std::size_t character(std::string_view s) {
    const auto byte = [&](std::size_t k) { return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u; };
    const auto follows = [&](std::size_t k) { return (byte(k) & 0xC0) == 0x80; };
    const unsigned c = byte(0);
    if (c < 0x80) return s.empty() ? 0 : 1;
    if (c >= 0xC2 && c < 0xE0) return follows(1) ? 2 : 0;
    // Neither in more bytes than needed, nor half of a pair for UTF-16, nor beyond 10FFFF.
    const unsigned least = c == 0xE0   ? 0xA0
                           : c == 0xF0 ? 0x90
                                       : 0x80,
                   most = c == 0xED   ? 0x9F
                          : c == 0xF4 ? 0x8F
                                      : 0xBF;
    if (c < 0xE0 || c > 0xF4 || byte(1) < least || byte(1) > most || !follows(2)) return 0;
    return c < 0xF0 ? 3 : follows(3) ? 4 : 0;
}

void append(std::string& to, unsigned code) {
    const auto tail = [&](int shift) { to += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
    if (code < 0x80) {
        to += static_cast<char>(code);
    } else if (code < 0x800) {
        to += static_cast<char>(0xC0 | (code >> 6)), tail(0);
    } else if (code < 0x10000) {
        to += static_cast<char>(0xE0 | (code >> 12)), tail(6), tail(0);
    } else {
        to += static_cast<char>(0xF0 | (code >> 18)), tail(12), tail(6), tail(0);
    }
}

// The four digits after \u; -1: there are not four.
int hex(std::string_view s) {
    int code = 0;
    if (s.size() < 4) return -1;
    const auto [end, error] = std::from_chars(s.data(), s.data() + 4, code, 16);
    return error == std::errc() && end == s.data() + 4 && s[0] != '-' ? code : -1;
}

bool is_high(int code) { return code >= 0xD800 && code < 0xDC00; }
bool is_low(int code) { return code >= 0xDC00 && code < 0xE000; }

// Of a string with its quotes, which the reader has seen whole.
std::string decoded(std::string_view s) {
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    std::string out;
    for (std::size_t k = 1; k + 1 < s.size(); ++k) {
        if (s[k] != '\\') {
            out += s[k];
        } else if (s[++k] != 'u') {
            out += kTo[kFrom.find(s[k])];
        } else {
            const int code = hex(s.substr(k + 1));
            k += 4;
            if (is_high(code)) {
                const int low = hex(s.substr(k + 3));
                append(out, 0x10000u + ((code - 0xD800u) << 10) + (low - 0xDC00u)), k += 6;
            } else {
                append(out, static_cast<unsigned>(code));
            }
        }
    }
    return out;
}

}  // namespace

class JsonReader {
  public:
    explicit JsonReader(Json& json) : text_(json.text_), nodes_(json.nodes_) {}

    void run() {
        if (text_.size() >= std::numeric_limits<std::uint32_t>::max()) refuse("less than 4 GiB of JSON");
        do {
            begin_value();
        } while (end_values());
        if (at_ != text_.size()) refuse("the end");
    }

  private:
    using Kind = Json::Kind;

    [[noreturn]] void refuse(const char* expected) const {
        const std::string next = at_ < text_.size() ? printable(text_.substr(at_, 20)) : "the end";
        throw std::invalid_argument(std::string("expected ") + expected + " at byte " + std::to_string(at_) +
                                    " of its JSON, got " + next);
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() {
        while (peek() == ' ' || peek() == '\n' || peek() == '\t' || peek() == '\r') ++at_;
    }

    bool take(char c) {
        skip_space();
        if (peek() != c) return false;
        ++at_;
        return true;
    }

    void add(Kind kind, std::size_t begin) {
        nodes_.push_back({static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(at_),
                          static_cast<std::uint32_t>(nodes_.size() + 1), kind});
    }

    // Reads a scalar or an empty container, or goes into a container, up to the first scalar.
    void begin_value() {
        for (;;) {
            skip_space();
            const std::size_t begin = at_;
            const char c = peek();
            if (c != '[' && c != '{') return scalar(begin);
            if (open_.size() == kDeepest) refuse("values nested at most 64 deep");
            open_.push_back(nodes_.size());
            ++at_;
            add(c == '[' ? Kind::array : Kind::object, begin);
            skip_space();
            if (peek() == (c == '[' ? ']' : '}')) return;
            if (c == '{') key();
        }
    }

    // After a value: closes what ends here; whether another value follows.
    bool end_values() {
        while (!open_.empty()) {
            const bool array = nodes_[open_.back()].kind == Kind::array;
            if (take(array ? ']' : '}')) {
                close();
                continue;
            }
            if (!take(',')) refuse(array ? "',' or ']'" : "',' or '}'");
            if (!array) key();
            return true;
        }
        skip_space();
        return false;
    }

    void key() {
        skip_space();
        if (peek() != '"') refuse("a key");
        string(at_);
        if (!take(':')) refuse("':'");
    }

    void close() {
        const std::size_t node = open_.back();
        open_.pop_back();
        nodes_[node].end = static_cast<std::uint32_t>(at_);
        nodes_[node].after = static_cast<std::uint32_t>(nodes_.size());
        if (nodes_[node].kind != Kind::object) return;
        std::vector<std::string> keys;
        for (std::size_t k = node + 1; k < nodes_.size(); k = nodes_[k + 1].after)
            keys.push_back(decoded(text_.substr(nodes_[k].begin, nodes_[k].end - nodes_[k].begin)));
        std::sort(keys.begin(), keys.end());
        const auto twice = std::adjacent_find(keys.begin(), keys.end());
        if (twice != keys.end())
            throw std::invalid_argument("expected every key of its JSON once, got '" + printable(*twice) + "' twice");
    }

    void scalar(std::size_t begin) {
        const char c = peek();
        if (c == '"') return string(begin);
        if (c == '-' || is_digit(c)) return number(begin);
        for (const std::string_view word : {"null", "true", "false"})
            if (text_.substr(at_, word.size()) == word) {
                at_ += word.size();
                return add(word == "null" ? Kind::null : Kind::boolean, begin);
            }
        refuse("a value");
    }

    void number(std::size_t begin) {
        const auto digits = [&] {
            if (!is_digit(peek())) refuse("a digit");
            while (is_digit(peek())) ++at_;
        };
        if (peek() == '-') ++at_;
        if (peek() == '0') {
            ++at_;  // alone
        } else {
            digits();
        }
        if (peek() == '.') ++at_, digits();
        if (peek() == 'e' || peek() == 'E') {
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits();
        }
        add(Kind::number, begin);
    }

    void string(std::size_t begin) {
        for (++at_; peek() != '"';) {
            if (static_cast<unsigned char>(peek()) < 0x20) refuse("a string that ends");
            if (peek() == '\\') {
                escape();
            } else {
                const std::size_t n = character(text_.substr(at_, 4));
                if (n == 0) refuse("UTF-8");
                at_ += n;
            }
        }
        ++at_;
        add(Kind::string, begin);
    }

    void escape() {
        ++at_;
        if (peek() != 'u') {
            if (at_ >= text_.size() || std::string_view("\"\\/bfnrt").find(peek()) == std::string_view::npos)
                refuse("an escape that JSON has");
            ++at_;
            return;
        }
        const int code = hex(text_.substr(at_ + 1));
        if (code < 0 || is_low(code)) refuse("an escaped character");
        at_ += 5;
        if (!is_high(code)) return;
        if (text_.substr(at_, 2) != "\\u" || !is_low(hex(text_.substr(at_ + 2)))) refuse("the second half of a pair");
        at_ += 6;
    }

    const std::string_view text_;
    std::vector<Json::Node>& nodes_;
    std::vector<std::size_t> open_;  // containers around
    std::size_t at_ = 0;
};

Json::Json(std::string text) : text_(std::move(text)) { JsonReader(*this).run(); }

std::string_view JsonValue::text() const {
    const Json::Node& node = json_->nodes_[node_];
    return std::string_view(json_->text_).substr(node.begin, node.end - node.begin);
}

void JsonValue::refuse(const std::string& what, const char* kind) const {
    throw std::invalid_argument("expected " + what + " as " + kind + ", got " + printable(text()));
}

bool JsonValue::is_null() const { return json_->nodes_[node_].kind == Json::Kind::null; }

std::int64_t JsonValue::integer(const std::string& what) const {
    std::int64_t value = 0;
    const std::string_view s = text();
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
    if (error != std::errc() || end != s.data() + s.size()) refuse(what, "a whole number of 64 bits");
    return value;
}

double JsonValue::number(const std::string& what) const {
    double value = 0;
    std::istringstream in{std::string(text())};
    in.imbue(std::locale::classic());
    if (json_->nodes_[node_].kind != Json::Kind::number || !(in >> value)) refuse(what, "a finite number");
    return value;
}

std::string JsonValue::string(const std::string& what) const {
    if (json_->nodes_[node_].kind != Json::Kind::string) refuse(what, "a string");
    return decoded(text());
}

std::vector<JsonValue> JsonValue::items(const std::string& what) const {
    const Json::Node& node = json_->nodes_[node_];
    if (node.kind != Json::Kind::array) refuse(what, "an array");
    std::vector<JsonValue> values;
    for (std::uint32_t k = node_ + 1; k < node.after; k = json_->nodes_[k].after) values.emplace_back(*json_, k);
    return values;
}

std::vector<std::pair<std::string, JsonValue>> JsonValue::members(const std::string& what) const {
    const Json::Node& node = json_->nodes_[node_];
    if (node.kind != Json::Kind::object) refuse(what, "an object");
    std::vector<std::pair<std::string, JsonValue>> members;
    for (std::uint32_t k = node_ + 1; k < node.after; k = json_->nodes_[k + 1].after)
        members.emplace_back(decoded(JsonValue(*json_, k).text()), JsonValue(*json_, k + 1));
    return members;
}

JsonValue JsonValue::at(std::string_view key, const std::string& what) const {
    for (const auto& [name, value] : members(what))
        if (name == key) return value;
    throw std::invalid_argument("expected " + what + " with an entry '" + std::string(key) + "'");
}

void JsonValue::only(const char* const* keys, std::size_t n, const std::string& what) const {
    for (const auto& [name, value] : members(what))
        if (std::find(keys, keys + n, name) == keys + n)
            throw std::invalid_argument("expected " + what + " without an entry '" + printable(name) + "'");
}

std::string printable(std::string_view text, std::size_t most) {
    std::string out;
    for (std::size_t k = 0; k < text.size();) {
        if (out.size() >= most) return out + "...";
        const std::size_t n = character(text.substr(k, 4));
        const bool good = n > 0 && static_cast<unsigned char>(text[k]) >= 0x20 && text[k] != 0x7F;
        out += good ? text.substr(k, n) : "?";
        k += std::max<std::size_t>(n, 1);
    }
    return out;
}

}  // namespace mdgnn::engine
