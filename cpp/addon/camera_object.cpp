#include "addon/camera_object.h"

#include <cstring>
#include <string>
#include <utility>

#include "addon/convert.h"
#include "addon/motion_convert.h"
#include "addon/task.h"

namespace premotor::addon {
namespace {

const char* name_of(camera::Format format) { return format == camera::Format::mjpeg ? "mjpeg" : "yuyv"; }

camera::DeviceOptions to_options(const Napi::Object& object) {
  camera::DeviceOptions options;
  options.path = text(object, "path");
  options.width = static_cast<int>(integer(object, "width"));
  options.height = static_cast<int>(integer(object, "height"));
  options.rate_hz = number(object, "rateHz");
  const Napi::Value format = object.Get("format");
  const std::string only = format.IsString() ? format.ToString().Utf8Value() : "";
  options.may_mjpeg = only != "yuyv";
  options.may_yuyv = only != "mjpeg";
  return options;
}

Napi::Object from_frame(Napi::Env env, const camera::CaptureFrame& frame) {
  Napi::Uint8Array data = Napi::Uint8Array::New(env, frame.byte_count);
  if (frame.byte_count > 0) std::memcpy(data.Data(), frame.bytes.data(), frame.byte_count);
  Napi::Object o = Napi::Object::New(env);
  o.Set("number", static_cast<double>(frame.number));
  o.Set("capturedNs", from_ns(env, frame.captured_ns));
  o.Set("sequence", static_cast<double>(frame.sequence));
  o.Set("data", data);
  return o;
}

Napi::Object from_offer(Napi::Env env, const camera::DeviceOffer& offer) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("path", offer.path);
  o.Set("card", offer.card);
  o.Set("driver", offer.driver);
  o.Set("bus", offer.bus);
  o.Set("isCapture", offer.is_capture);
  Napi::Array formats = Napi::Array::New(env);
  for (const camera::FormatOffer& format : offer.formats) {
    Napi::Object f = Napi::Object::New(env);
    f.Set("code", format.code);
    f.Set("description", format.description);
    Napi::Array sizes = Napi::Array::New(env);
    for (const camera::SizeOffer& size : format.sizes) {
      Napi::Object s = Napi::Object::New(env);
      s.Set("width", size.width);
      s.Set("height", size.height);
      s.Set("isRange", size.is_range);
      Napi::Array rates = Napi::Array::New(env);
      for (const double rate : size.rates_hz) rates.Set(rates.Length(), rate);
      s.Set("ratesHz", rates);
      sizes.Set(sizes.Length(), s);
    }
    f.Set("sizes", sizes);
    formats.Set(formats.Length(), f);
  }
  o.Set("formats", formats);
  return o;
}

Napi::Value undefined_of(Napi::Env env) { return env.Undefined(); }

// lookAtCamera(path): what one device can send, as a promise.
Napi::Value look_at(const Napi::CallbackInfo& info) {
  const std::string path = info[0].ToString().Utf8Value();
  const auto offer = std::make_shared<camera::DeviceOffer>();
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [path, offer](const Progress&) {
        const auto system = camera::make_system();
        return camera::look_at(system.get(), path, offer.get());
      },
      [offer](Napi::Env env) -> Napi::Value { return from_offer(env, *offer); });
}

}  // namespace

void CameraObject::define(Napi::Env env, Napi::Object exports) {
  using Self = CameraObject;
  exports.Set("Camera", DefineClass(env, "NativeCamera",
                                    {InstanceMethod<&Self::open>("open"), InstanceMethod<&Self::agreed>("agreed"),
                                     InstanceMethod<&Self::frames>("frames"), InstanceMethod<&Self::wait>("wait"),
                                     InstanceMethod<&Self::counts>("counts"), InstanceMethod<&Self::check>("check"),
                                     InstanceMethod<&Self::close>("close")}));
  exports.Set("lookAtCamera", Napi::Function::New(env, look_at));
}

CameraObject::CameraObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<CameraObject>(info), capture_(std::make_shared<camera::Capture>(camera::make_system())) {}

// open({ path, width, height, rateHz, format? }); 0: the camera's own.
Napi::Value CameraObject::open(const Napi::CallbackInfo& info) {
  const camera::DeviceOptions options = to_options(info[0].As<Napi::Object>());
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [capture = capture_, options](const Progress&) { return capture->open(options); }, undefined_of);
}

Napi::Value CameraObject::agreed(const Napi::CallbackInfo& info) {
  const camera::Agreed& from = capture_->agreed();
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("format", name_of(from.format));
  o.Set("width", from.width);
  o.Set("height", from.height);
  o.Set("rateHz", from.rate_hz);
  o.Set("driver", from.driver);
  o.Set("card", from.card);
  return o;
}

// frames(after): copies of the kept frames that are newer than a number, oldest first.
Napi::Value CameraObject::frames(const Napi::CallbackInfo& info) {
  const std::int64_t after = info[0].As<Napi::Number>().Int64Value();
  Napi::Array all = Napi::Array::New(info.Env());
  capture_->each_after(after < 0 ? 0 : static_cast<std::uint64_t>(after), [&](const camera::CaptureFrame& frame) {
    all.Set(all.Length(), from_frame(info.Env(), frame));
  });
  return all;
}

// wait(after, timeoutMs): resolves when there is a newer frame, when none can come, and when the time is over.
Napi::Value CameraObject::wait(const Napi::CallbackInfo& info) {
  const std::int64_t after = info[0].As<Napi::Number>().Int64Value();
  const int timeout_ms = info[1].As<Napi::Number>().Int32Value();
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [capture = capture_, after, timeout_ms](const Progress&) {
        capture->wait_for(after < 0 ? 0 : static_cast<std::uint64_t>(after), timeout_ms);
        return Status::good();
      },
      undefined_of);
}

Napi::Value CameraObject::counts(const Napi::CallbackInfo& info) {
  const camera::CaptureCounts from = capture_->counts();
  Napi::Object o = Napi::Object::New(info.Env());
  const auto set = [&](const char* key, std::uint64_t value) { o.Set(key, static_cast<double>(value)); };
  set("frames", from.device.frames);
  set("damaged", from.device.damaged);
  set("dropped", from.device.dropped);
  set("backwards", from.device.backwards);
  set("timeouts", from.timeouts);
  return o;
}

// Throws when no more frames come.
Napi::Value CameraObject::check(const Napi::CallbackInfo& info) {
  const Status problem = capture_->problem();
  if (!problem.ok()) throw to_error(info.Env(), problem);
  return info.Env().Undefined();
}

// The thread may look at its camera for another tenth of a second: nobody waits for that on the event loop.
Napi::Value CameraObject::close(const Napi::CallbackInfo& info) {
  return Task::start(
      info.Env(), info.Env().Undefined(),
      [capture = capture_](const Progress&) {
        capture->close();
        return Status::good();
      },
      undefined_of);
}

}  // namespace premotor::addon
