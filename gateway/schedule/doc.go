// Package schedule says when jobs run, and which automatic snapshots go. It keeps no
// state, starts nothing and reads no clock: gateway/control asks it, with the time and
// with what ran last.
//
// # When
//
// A Schedule is a cron expression in a time zone. Its slots are the moments that match:
//
//	minute hour day-of-month month day-of-week
//	0-59   0-23 1-31         1-12  0-7          names of months and days as well
//
//	*       every value          1-5     a range
//	1,2,7   a list               */15    every 15th;  10-50/20  of a range
//	@hourly @daily @midnight @weekly @monthly @yearly @annually
//
// A day matches when day-of-month and day-of-week do; when neither begins with a star,
// one of the two is enough, as with cron.
//
// # Invariants
//
//	S1  A slot whose time of day does not exist, because clocks go forward, is the first
//	    moment after the gap; several of one gap are one slot.
//	S2  A slot whose time of day comes twice, because clocks go back, is the first of the two.
//	S3  An object runs its slot later by an offset that depends on the object and the slot's
//	    gap alone, is below a quarter of the gap to the next slot and below a given bound: it
//	    runs before the next slot, and the same slots are run after a restart.
//	S4  Of slots that were missed only the newest is run, once, and only within a bound.
//	S5  A clock that goes back runs no slot again that is at or before the newest one that ran.
//	    When that one is more than MaxAhead in the future the clock was wrong then: slots count
//	    from now.
//
// # Which
//
// Retention in the zone of its schedule, B being 00:00 of yesterday:
//
//	newer than B             all stay
//	(B-1d, B]                the newest consistent one stays, else the newest
//	(B-2d, B-1d] ...         of each further day the oldest stays
//	weeks behind the days    of each the oldest stays
//	older                    all go
//
// Sticky snapshots, those that clones start from and those that nobody's schedule made do
// not count and stay.
package schedule
