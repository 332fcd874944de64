"""The programs openstack and cinder, without the time that Python takes to load them.

usage: clients.py SOCKET. A connection to it has one request, a line of JSON:
{"program": NAME, "args": [...], "env": {...}}, answered by another one:
{"code": N, "out": TEXT, "err": TEXT}. Each request is a process of its own, forked
from this one, which has loaded their modules. It says "ready", and ends with its
standard input.
"""

import importlib
from importlib import metadata
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback

MODULES = {'openstack': 'openstackclient.shell',
           'cinder': 'cinderclient.shell'}
# What they load when they know what is asked of them.
GROUPS = ('openstack.cli.base', 'openstack.common', 'openstack.identity.v3',
          'openstack.image.v2', 'openstack.volume.v3', 'keystoneauth1.plugin',
          'cliff.formatter.list', 'cliff.formatter.show')
LATER = ('openstack.connection', 'cinderclient.v3.shell', 'requests',
         'keystoneauth1.identity', 'glanceclient.v2.client')


def load():
    for group in GROUPS:
        for entry in metadata.entry_points(group=group):
            entry.load()
    for name in LATER:
        importlib.import_module(name)
    return {program: importlib.import_module(name).main
            for program, name in MODULES.items()}


def run(main):
    """What the program would end with."""
    try:
        code = main()
    except SystemExit as e:
        code = e.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def answer(connection, programs):
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    os.environ.update(request['env'])
    sys.argv = [request['program']] + request['args']
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = run(programs[request['program']])
        texts = []
        for f in (out, err):
            f.seek(0)
            texts.append(f.read().decode(errors='replace'))
    connection.sendall(json.dumps(
        {'code': code, 'out': texts[0], 'err': texts[1]}).encode() + b'\n')


def main():
    programs = load()
    # Nobody waits for the processes that answer.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    print('ready', flush=True)
    while True:
        ready = select.select([listener, sys.stdin], [], [])[0]
        if sys.stdin in ready:
            return
        connection = listener.accept()[0]
        with connection:
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                try:
                    answer(connection, programs)
                finally:
                    os._exit(0)


if __name__ == '__main__':
    main()
