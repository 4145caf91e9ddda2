/**
 * The job of the simulated arm: how a checkpoint sees it (two cameras) and moves it (four joints in the left joint channels). Pure data, in the words
 * of the reference's job configuration.
 */
import type { Job } from '../policy/contract.js';
import { JOINTS } from './arm.js';
import { CAMERAS } from './scene.js';

/** Side of every picture, pixels. */
export const PICTURE_SIZE = 96;
export const ACTION_RATE_HZ = 25;
/** Every second action: the video rate that the reference trains with. */
export const VIDEO_RATE_HZ = 12.5;
/** Channels 14 .. 20 are the joints of the left arm. */
const FIRST_JOINT_CHANNEL = 14;
const ACTION_DIM = 30;

/** Quantiles of the 30 channels: joint ranges where the arm has joints, -1 .. 1 elsewhere, where nothing reads them. */
function quantiles(pick: (joint: (typeof JOINTS)[number]) => number, unused: number): number[] {
  return Array.from({ length: ACTION_DIM }, (_, channel) => {
    const joint = JOINTS[channel - FIRST_JOINT_CHANNEL];
    return joint ? pick(joint) : unused;
  });
}

export const SIM_JOB: Job = {
  param_dtype: 'float32',
  patch_size: [1, 2, 2],
  infer_mode: 'server',
  env_type: 'none',
  action_dim: ACTION_DIM,
  obs_cam_keys: CAMERAS.map((name) => `observation.images.${name}`),
  guidance_scale: 1,
  action_guidance_scale: 1,
  num_inference_steps: 5,
  video_exec_step: -1,
  action_num_inference_steps: 10,
  snr_shift: 5,
  action_snr_shift: 1,
  used_action_channel_ids: JOINTS.map((_, index) => FIRST_JOINT_CHANNEL + index),
  action_norm_method: 'quantiles',
  norm_stat: { q01: quantiles((joint) => joint.lowerRad, -1), q99: quantiles((joint) => joint.upperRad, 1) },
  attn_window: 30,
  height: PICTURE_SIZE,
  width: PICTURE_SIZE,
  frame_chunk_size: 2,
  action_per_frame: 8,
  max_sequence_length: 32,
  bf16_input_cast: true,
};
