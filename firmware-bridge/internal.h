// What the bridge's own files share: the state machine's door, the host's requests, the reports. Not for ports.
#pragma once

#include "firmware-bridge/bridge.h"

// Takes the table's row for the present state. False when there is none: the trigger is out of place.
bool pm_bridge_trigger(struct pm_bridge* bridge, enum pm_trigger trigger);

// host.c: a frame of the host bus.
void pm_host_on_frame(struct pm_bridge* bridge, const struct pm_can_frame* frame);

// report.c
void pm_report_short(struct pm_bridge* bridge, uint32_t id, const uint8_t payload[PM_SHORT_PAYLOAD_BYTES]);
void pm_report_fault(struct pm_bridge* bridge);
void pm_report_tick(struct pm_bridge* bridge);
// Queues a frame; a full queue counts it as dropped.
void pm_send(struct pm_bridge* bridge, uint8_t bus, bool is_motion, const struct pm_can_frame* frame);
