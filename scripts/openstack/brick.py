"""os-brick in the guest, as Nova and Cinder use it on a host.

usage: brick.py DIR. DIR/in is a pipe that takes requests, lines of JSON:
{"do": NAME, ...}. Each is answered by a line in the pipe DIR/out, {"answer": ...} or
{"error": TEXT}. It says "ready" in DIR/out before the first. What os-brick does as
root is done in this process, which is root, and not in a helper.
"""

import json
import os
import sys
import traceback

from castellan.common.objects import symmetric_key
from oslo_concurrency import lockutils  # noqa: F401 (its options)
from oslo_config import cfg
from oslo_log import log as logging

import os_brick
from os_brick import encryptors
from os_brick.initiator import connector
from os_brick import privileged

CONF = cfg.CONF


class Key:
    """A key manager that has one key."""

    def __init__(self, key):
        self.key = bytes.fromhex(key)

    def get(self, context, key_id):
        return symmetric_key.SymmetricKey('AES', 8 * len(self.key), self.key)


class Host:
    def __init__(self):
        self.iscsi = connector.InitiatorConnector.factory(
            'ISCSI', None, use_multipath=True, device_scan_attempts=10)

    def connector(self, ip, host):
        """What Nova tells Cinder of this host."""
        return connector.get_connector_properties(None, ip, True, True,
                                                  host=host)

    def connect(self, properties):
        return self.iscsi.connect_volume(properties)

    def disconnect(self, properties, device, force=False):
        self.iscsi.disconnect_volume(properties, device, force=force)

    def extend(self, properties):
        return self.iscsi.extend_volume(properties)

    def paths(self, properties):
        return sorted(self.iscsi.get_volume_paths(properties))

    @staticmethod
    def _encryptor(properties, device, key, metadata):
        data = dict(properties, device_path=device['path'])
        return encryptors.get_volume_encryptor(
            None, {'driver_volume_type': 'iscsi', 'data': data}, Key(key),
            **metadata)

    def encrypt(self, properties, device, key, metadata):
        """Open LUKS on a device, made the first time."""
        self._encryptor(properties, device, key, metadata).attach_volume(
            None, **metadata)

    def extend_encrypted(self, properties, device, key, metadata):
        return self._encryptor(properties, device, key,
                               metadata).extend_volume(None, **metadata)

    def decrypt(self, properties, device, key, metadata):
        """Close it."""
        self._encryptor(properties, device, key, metadata).detach_volume(
            **metadata)


def answer(host, line):
    try:
        request = json.loads(line)
        do = getattr(host, request.pop('do'))
        return {'answer': do(**request)}
    except BaseException as e:
        traceback.print_exc()
        return {'error': '%s: %s' % (type(e).__name__, e)}


def say(where, text):
    with open(where, 'w') as f:
        f.write(text + '\n')


def main():
    where = sys.argv[1]
    logging.register_options(CONF)
    CONF(['--debug', '--log-file', os.path.join(where, 'log')],
         project='os-brick')
    logging.setup(CONF, 'os-brick')
    CONF.set_override('lock_path', where, 'oslo_concurrency')
    os_brick.setup(CONF)
    privileged.default.set_client_mode(False)
    host = Host()
    say(os.path.join(where, 'out'), 'ready')
    while True:
        with open(os.path.join(where, 'in')) as f:
            line = f.readline()
        say(os.path.join(where, 'out'), json.dumps(answer(host, line)))


if __name__ == '__main__':
    main()
