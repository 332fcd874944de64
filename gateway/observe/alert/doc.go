// Package alert tells people what is wrong: it follows the causes of health, decides by rules
// which of them are told, and sends them by mail and to webhooks. gateway/node runs it, on
// one node of a cluster at a time.
//
//	causes ─► Book (rules, silences) ─► what each channel has not been told ─► Send
//
// What was told is kept with each alert and stored, so that there is no queue that could
// grow or be lost: a channel that failed is told the present state once it works.
//
// # Invariants
//
//	A1  A channel hears of an alert once when it begins, when its level changes and when it is
//	    over, and again after the rule's reminder; of what was never told, not that it is over.
//	    A crash or a change of the sending node in the middle of a delivery repeats it.
//	A2  Everything is bounded: alerts, alerts in a message, time and size of a delivery.
//	A3  A channel that is slow or dead delays no other. It is tried again, later each time.
//	A4  No error names a channel's secret, which the URL of a webhook is.
package alert
