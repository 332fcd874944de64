// Package syslog sends a node's events to a syslog server, as RFC 5424 has them, over UDP (RFC
// 5426), TCP (RFC 6587, octet counting) or TLS (RFC 5425). gateway/node hands it each event.
//
//	<PRI>1 TIME HOST ovgate PID CODE [event@32473 object="vdisk demo" seq="7"] BOM text
//
// The facility is daemon (3). Severities: error is 3, warning 4, info 6.
//
// # Invariants
//
//	Y1  Send waits for nothing. Up to maxQueue events wait; of those beyond the oldest go, and
//	    are counted.
//	Y2  A connection that fails is made anew after a pause that doubles from a second to a
//	    minute; what was not written to one goes to the next. What the network took and the
//	    server did not is lost, as syslog has no answers.
//	Y3  A message is bounded and has no line break or other control character.
//	Y4  A server is believed by its certificate alone, where the scheme is tls.
package syslog
