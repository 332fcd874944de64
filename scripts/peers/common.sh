# shellcheck shell=bash
# What peers that are made of several daemons share: processes, ports, secrets. Sourced
# by them, after they have set $state, the directory that they keep things in.

# fail MESSAGE...: ends with the name of the peer before it.
fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# start_time PID: a process is its number and when it started, so that a later one
# with its number is never taken for ours.
start_time() { [ -r "/proc/$1/stat" ] && sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; }

alive() { # NAME
	local pid since
	read -r pid since 2>/dev/null <"$state/$1.pid" || return 1
	[ "$(start_time "$pid")" = "$since" ]
}

daemon() { # NAME COMMAND...: in a process group of its own
	local name=$1
	shift
	setsid "$@" >>"$state/$name.log" 2>&1 </dev/null &
	echo "$! $(start_time $!)" >"$state/$name.pid"
}

end() { # NAME: the process with its workers
	local pid i
	alive "$1" || { rm -f "$state/$1.pid"; return 0; }
	read -r pid _ <"$state/$1.pid"
	kill -TERM -- "-$pid" 2>/dev/null || true
	for i in $(seq 100); do
		grep -q ') [^Z]' "/proc/$pid/stat" 2>/dev/null || break # ended, if perhaps not waited for
		sleep 0.1
	done
	kill -KILL -- "-$pid" 2>/dev/null || true
	rm -f "$state/$1.pid"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

used=
free_port() { # VARIABLE: a loopback port nobody listens on
	local p
	while :; do
		p=$((RANDOM % 12000 + 20000))
		case " $used " in *" $p "*) continue ;; esac
		if ! listens "$p"; then
			used="$used $p"
			printf -v "$1" %s "$p"
			return
		fi
	done
}

random() { od -An -N 16 -tx1 /dev/urandom | tr -d ' \n'; }

secret() { # NAME: made once for a state directory
	[ -s "$state/secret-$1" ] || random >"$state/secret-$1"
	cat "$state/secret-$1"
}

# value FILE KEY: of a file with key=value lines
value() { sed -n "s/^$2=//p" "$1"; }

# secret_lines are not for the terminal.
secret_lines='^[a-z0-9_]*\(key\|secret\)='

show() {
	grep -v "$secret_lines" "$state/credentials"
	echo "credentials=$state/credentials"
}

# other NAME VERB OPTIONS...: a peer of the same instance
other() {
	local name=$1 verb=$2
	shift 2
	OVGATE_PEERS=${state%/*} "$here/../peer" "$name" "$verb" --instance "${state##*/"${0##*/}"-}" "$@"
}

# borrow NAME OPTIONS...: starts another peer unless it runs; prints where its
# credentials are. give_back ends one that borrow started.
borrow() {
	other "$1" status >/dev/null 2>&1 || touch "$state/own-$1"
	other "$1" up "${@:2}" | sed -n 's/^credentials=//p'
}

give_back() { # NAME
	[ -e "$state/own-$1" ] || return 0
	other "$1" down
	rm -f "$state/own-$1"
}

# service_user FILE: the options of a service that asks Keystone, whose credentials
# stand in the file, about tokens
service_user() {
	printf 'auth_type = password\nproject_domain_name = Default\nuser_domain_name = Default\n'
	printf 'auth_url = %s\nusername = %s\npassword = %s\nproject_name = %s\n' "$(value "$1" auth)" \
		"$(value "$1" service)" "$(value "$1" service_key)" "$(value "$1" service_project)"
}

# until_answers NAME SECONDS URL: fails when the daemon ends first or time is out
until_answers() {
	local end=$((SECONDS + $2))
	until curl -sf -o /dev/null --max-time 10 "$3"; do
		alive "$1" || fail "$1 ended: $(tail -n 3 "$state/$1.log")"
		[ "$SECONDS" -lt "$end" ] || fail "$1 does not answer, see $state/$1.log"
		sleep 0.1
	done
}

# same_port VARIABLE [FILE]: the port of the last start, as catalogs and clients know it,
# or a free one. A process that was killed may have it for a moment still.
same_port() {
	local file=$state/${2:-port} p='' i
	[ ! -s "$file" ] || read -r p <"$file"
	for i in $(seq 50); do
		[ -n "$p" ] || break
		if ! listens "$p"; then
			printf -v "$1" %s "$p"
			return
		fi
		sleep 0.1
	done
	free_port "$1"
	echo "${!1}" >"$file"
}
