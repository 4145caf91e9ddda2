// Rotary position embedding over (frame, height, width): docs/MODEL.md section 3. head_dim splits into three parts,
// height and width head_dim / 3 each and frame the rest; theta 10^4; float32 base frequencies and angles.
#pragma once

#include <cstdint>
#include <vector>

namespace premotor::engine {

struct RopeTable {
  std::vector<float> cos;  // [tokens, head_dim / 2]
  std::vector<float> sin;  // [tokens, head_dim / 2]
};

class Rope {
 public:
  explicit Rope(std::int64_t head_dim);

  // Tokens (f, h, w) of `frames` frames from `frame_start` on a grid of height x width patches, w fastest.
  void video(std::int64_t frame_start, std::int64_t frames, std::int64_t height, std::int64_t width,
             RopeTable* out) const;
  // Token j of frame f at (f + (j + 1) / (per_frame + 1), -1, -1); round_positions: the position is rounded to bfloat16
  // first.
  void action(std::int64_t frame_start, std::int64_t frames, std::int64_t per_frame, bool round_positions,
              RopeTable* out) const;

 private:
  void append(float f, float h, float w, RopeTable* out) const;

  std::vector<float> frame_base_;  // [frame part / 2]
  std::vector<float> space_base_;  // [height part / 2], equal for height and width
};

}  // namespace premotor::engine
