#include "engine/rope.h"

#include <cmath>

#include "base/half.h"

namespace premotor::engine {
namespace {

std::vector<float> base_frequencies(std::int64_t dim) {
  std::vector<float> base;
  for (std::int64_t k = 0; k < dim / 2; ++k)
    base.push_back(static_cast<float>(1.0 / std::pow(10000.0, static_cast<double>(2 * k) / static_cast<double>(dim))));
  return base;
}

}  // namespace

Rope::Rope(std::int64_t head_dim)
    : frame_base_(base_frequencies(head_dim - 2 * (head_dim / 3))), space_base_(base_frequencies(head_dim / 3)) {}

void Rope::append(float f, float h, float w, RopeTable* out) const {
  const auto add = [&](float position, const std::vector<float>& base) {
    for (const float frequency : base) {
      const double angle = position * frequency;  // float32 product
      out->cos.push_back(static_cast<float>(std::cos(angle)));
      out->sin.push_back(static_cast<float>(std::sin(angle)));
    }
  };
  add(f, frame_base_);
  add(h, space_base_);
  add(w, space_base_);
}

void Rope::video(std::int64_t frame_start, std::int64_t frames, std::int64_t height, std::int64_t width,
                 RopeTable* out) const {
  out->cos.clear();
  out->sin.clear();
  for (std::int64_t f = 0; f < frames; ++f)
    for (std::int64_t h = 0; h < height; ++h)
      for (std::int64_t w = 0; w < width; ++w)
        append(static_cast<float>(frame_start + f), static_cast<float>(h), static_cast<float>(w), out);
}

void Rope::action(std::int64_t frame_start, std::int64_t frames, std::int64_t per_frame, bool round_positions,
                  RopeTable* out) const {
  out->cos.clear();
  out->sin.clear();
  for (std::int64_t f = 0; f < frames; ++f) {
    for (std::int64_t j = 0; j < per_frame; ++j) {
      const float offset = static_cast<float>(j + 1) / static_cast<float>(per_frame + 1);
      const float position = static_cast<float>(frame_start + f) + offset;
      append(round_positions ? round_to_bf16(position) : position, -1.0f, -1.0f, out);
    }
  }
}

}  // namespace premotor::engine
