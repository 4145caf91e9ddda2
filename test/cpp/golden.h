// Reading a golden case (test/goldens/README.md) for the native tests: its job, its calls and its tensors.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/json.h"
#include "engine/job.h"
#include "engine/safetensors.h"

namespace golden {

// The folder of the fixtures: PREMOTOR_GOLDENS, or test/goldens below the working directory.
inline std::string folder() {
  const char* given = std::getenv("PREMOTOR_GOLDENS");
  return given == nullptr ? "test/goldens" : given;
}

// Ends the test program when a fixture cannot be read: nothing could be tested then.
inline void need(const premotor::Status& status) {
  if (status.ok()) return;
  std::printf("Bail out! %s: %s\n", status.code, status.message.c_str());
  std::exit(2);
}

inline premotor::JsonValue read_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  premotor::JsonValue value;
  need(premotor::parse_json(text, &value));
  return value;
}

// Any float tensor of a file as float32 values.
inline std::vector<float> floats(const premotor::engine::TensorStore& store, const std::string& name) {
  const premotor::engine::StoredTensor* tensor = store.find(name);
  if (tensor == nullptr) {
    std::printf("Bail out! the fixture has no tensor %s\n", name.c_str());
    std::exit(2);
  }
  std::vector<float> values(static_cast<std::size_t>(tensor->elements()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (tensor->dtype == premotor::engine::StoredDtype::f32) {
      std::memcpy(&values[i], tensor->data + i * 4, 4);
    } else {
      std::uint16_t bits = 0;
      std::memcpy(&bits, tensor->data + i * 2, 2);
      values[i] = premotor::bf16_to_f32(bits);
    }
  }
  return values;
}

template <typename T>
std::vector<T> integers(const premotor::engine::TensorStore& store, const std::string& name) {
  const premotor::engine::StoredTensor* tensor = store.find(name);
  std::vector<T> values(static_cast<std::size_t>(tensor->elements()));
  std::memcpy(values.data(), tensor->data, values.size() * sizeof(T));
  return values;
}

// |a - b| / |b|, root mean square; infinite when the sizes differ or a is not finite.
inline double relative_rms(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += static_cast<double>(b[i]) * b[i];
  }
  if (!std::isfinite(difference)) return INFINITY;
  return size == 0 ? (difference == 0 ? 0 : INFINITY) : std::sqrt(difference / size);
}

inline double number(const premotor::JsonValue& job, const char* key) { return job.find(key)->number(); }

inline premotor::engine::JobConfig read_job(const premotor::JsonValue& json) {
  premotor::engine::JobConfig job;
  job.deployed_bf16 = json.find("param_dtype")->string() == "bfloat16";
  job.i2va = json.find("infer_mode")->string() == "i2va";
  job.tshape = json.find("env_type")->string() == "robotwin_tshape";
  job.cameras = static_cast<std::int64_t>(json.find("obs_cam_keys")->items().size());
  job.guidance_scale = static_cast<float>(number(json, "guidance_scale"));
  job.action_guidance_scale = static_cast<float>(number(json, "action_guidance_scale"));
  job.video_steps = json.find("num_inference_steps")->integer();
  job.imagine_steps = job.video_steps;
  job.video_exec_step = json.find("video_exec_step")->integer();
  job.action_steps = json.find("action_num_inference_steps")->integer();
  job.snr_shift = static_cast<float>(number(json, "snr_shift"));
  job.action_snr_shift = static_cast<float>(number(json, "action_snr_shift"));
  for (const premotor::JsonValue& id : json.find("used_action_channel_ids")->items())
    job.used_channels.push_back(id.integer());
  for (const premotor::JsonValue& q : json.find("norm_stat")->find("q01")->items())
    job.q01.push_back(static_cast<float>(q.number()));
  for (const premotor::JsonValue& q : json.find("norm_stat")->find("q99")->items())
    job.q99.push_back(static_cast<float>(q.number()));
  job.attn_window = json.find("attn_window")->integer();
  job.height = json.find("height")->integer();
  job.width = json.find("width")->integer();
  job.frame_chunk_size = json.find("frame_chunk_size")->integer();
  job.action_per_frame = json.find("action_per_frame")->integer();
  return job;
}

}  // namespace golden
