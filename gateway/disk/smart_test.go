package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ata, nvme and scsi are output of smartctl --json as its documentation has it, cut
// to what matters and some of what does not.
const (
	ata = `{"json_format_version":[1,0],"smartctl":{"version":[7,3],"argv":["smartctl","--json","/dev/sda"],"exit_status":%d},
		"device":{"name":"/dev/sda","type":"sat","protocol":"ATA"},"model_name":"ST4000NM","serial_number":"ZC1","rotation_rate":7200,
		"smart_support":{"available":true,"enabled":true},"smart_status":{"passed":%v},
		"ata_smart_attributes":{"revision":10,"table":[{"id":194,"name":"Temperature_Celsius","value":69,"worst":49,"raw":{"value":31,"string":"31 (Min/Max 20/51)"}}]},
		"power_on_time":{"hours":12000},"temperature":{"current":31}}`
	nvme = `{"json_format_version":[1,0],"smartctl":{"version":[7,3],"exit_status":0},"device":{"name":"/dev/nvme0","type":"nvme","protocol":"NVMe"},
		"smart_status":{"passed":true,"nvme":{"value":0}},
		"nvme_smart_health_information_log":{"critical_warning":%d,"temperature":44,"available_spare":100,"available_spare_threshold":10,"percentage_used":3,"media_errors":0},
		"temperature":{"current":44}}`
	scsi = `{"json_format_version":[1,0],"smartctl":{"version":[7,3],"exit_status":0},"device":{"name":"/dev/sdb","type":"scsi","protocol":"SCSI"},
		"smart_status":{"passed":true},"temperature":{"current":28,"drive_trip":60},"scsi_grown_defect_list":0,
		"scsi_error_counter_log":{"read":{"total_uncorrected_errors":0}}}`
	asleep = `{"json_format_version":[1,0],"smartctl":{"version":[7,3],"messages":[{"string":"Device is in STANDBY mode, exit(2)","severity":"information"}],"exit_status":2}}`
	absent = `{"json_format_version":[1,0],"smartctl":{"messages":[{"string":"Smartctl open device: /dev/sdz failed: No such device","severity":"error"}],"exit_status":2}}`
)

func describe(h Health) string {
	var out []string
	if h.Healthy != nil {
		out = append(out, fmt.Sprint("healthy ", *h.Healthy))
	}
	if h.Temperature != nil {
		out = append(out, fmt.Sprint(*h.Temperature, " C"))
	}
	if h.Problem != "" {
		out = append(out, h.Problem)
	}
	return strings.Join(out, ", ")
}

func TestParseSMART(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"ata", fmt.Sprintf(ata, 0, true), "healthy true, 31 C"},
		{"ata that fails", fmt.Sprintf(ata, 8, false), "healthy false, 31 C, it says that it fails"},
		{"nvme", fmt.Sprintf(nvme, 0), "healthy true, 44 C"},
		{"nvme that warns", fmt.Sprintf(nvme, 4), "healthy false, 44 C, it warns: critical warning 0x04"},
		{"scsi", scsi, "healthy true, 28 C"},
		{"asleep", asleep, "Device is in STANDBY mode, exit(2)"},
		{"absent", absent, "Smartctl open device: /dev/sdz failed: No such device"},
		{"a broken sensor", strings.Replace(scsi, `"current":28`, `"current":255`, 1), "healthy true"},
		{"nothing", `{"json_format_version":[1,0]}`, "it does not tell its health"},
	} {
		if h, err := ParseSMART([]byte(c.in)); err != nil || describe(h) != c.want {
			t.Errorf("%s: %q, %v, not %q", c.name, describe(h), err, c.want)
		}
	}
	for _, bad := range []string{"", "smartctl 6.6", "{}", `{"json_format_version":[2,0]}`, `{"json_format_version":[1,0],"temperature":{"current":"hot"}}`} {
		if h, err := ParseSMART([]byte(bad)); err == nil {
			t.Errorf("%q: %s", bad, describe(h))
		}
	}
}

// TestMonitor: a disk is asked once in a while, its exit status is no failure, and what
// cannot be is told.
func TestMonitor(t *testing.T) {
	dir := t.TempDir()
	program := func(script string) string {
		name := filepath.Join(dir, "smartctl")
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	out := filepath.Join(dir, "out")
	if err := os.WriteFile(out, []byte(fmt.Sprintf(ata, 64, true)), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &Monitor{Program: program(`echo "$@" >>` + dir + `/asked; cat ` + out + `; exit 64`)}
	d := Disk{Path: "/dev/sda"}
	said := func(at time.Time) string {
		m.Ask(t.Context(), []Disk{d}, at)
		h, ok := m.Health(d)
		if !ok {
			t.Fatal("nothing is known")
		}
		return describe(h)
	}
	begin := time.Unix(1e9, 0)
	for i, after := range []time.Duration{0, time.Second, smartEvery - 1, smartEvery} {
		if got := said(begin.Add(after)); got != "healthy true, 31 C" {
			t.Errorf("%d: %s", i, got)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "asked")); err != nil || strings.Count(string(b), "/dev/sda") != 2 || strings.Count(string(b), "--nocheck=standby") != 2 {
		t.Errorf("asked %q, %v", b, err)
	}
	for script, want := range map[string]string{
		"head -c 2000000 /dev/zero":           "more than 1048576 bytes",
		"echo cannot; exit 2":                 "smartctl: invalid character",
		"cat " + filepath.Join(dir, "absent"): "smartctl: unexpected end",
	} {
		program(script)
		begin = begin.Add(time.Hour)
		if got := said(begin); !strings.Contains(got, want) {
			t.Errorf("%s: %q, not %q", script, got, want)
		}
	}
	m.Program = filepath.Join(dir, "none")
	if got := said(begin.Add(time.Hour)); !strings.Contains(got, "no such file") {
		t.Error(got)
	}
	m.Ask(t.Context(), nil, begin)
	if h, ok := m.Health(d); ok {
		t.Errorf("a disk that is gone says %s", describe(h))
	}
}
