"""cinder-scheduler, cinder-volume of every backend and cinder-api in one process.

With main(backup=True) cinder-backup as well, on a host that can attach volumes.

usage: python3 -c START --config-file FILE, with transport_url = fake://, where START is
import eventlet; eventlet.monkey_patch(); import cinder_services; cinder_services.main()
since eventlet has to come before what it patches.

In one process the services need no message broker, and SQLite has one writer. The API
listens last: when it answers, the scheduler knows the pools of all backends. One that
did not come up is named in a line "uninitialized=NAME,..." on standard output.
"""

import importlib
import shlex
import sys
import threading
import time

import eventlet
import os_brick
from oslo_config import cfg
from oslo_log import log as logging
from oslo_messaging._drivers import impl_fake
from oslo_privsep import priv_context
from oslo_serialization import jsonutils
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy import pool

from cinder.common import config
from cinder.common import constants
from cinder import coordination
from cinder import objects
from cinder import rpc
from cinder import service
from cinder import utils
from cinder import version

CONF = cfg.CONF
FIGURES_MAX = 30  # seconds until the scheduler knows what a backend reports


def copy(message):
    return jsonutils.loads(jsonutils.dumps(message))


deliver = impl_fake.FakeExchange.deliver_message
reply = impl_fake.FakeIncomingMessage.reply


def deliver_copy(exchange, topic, ctxt, message, **kwargs):
    """Hand over what a broker does: not the sender's own objects."""
    deliver(exchange, topic, ctxt, copy(message), **kwargs)


def reply_copy(incoming, answer=None, failure=None):
    reply(incoming, copy(answer), failure)


impl_fake.FakeExchange.deliver_message = deliver_copy
impl_fake.FakeIncomingMessage.reply = reply_copy
# Opening SQLite for every session, which is the default, takes a fifth of all time.
pysqlite.SQLiteDialect_pysqlite.get_pool_class = classmethod(
    lambda cls, url: pool.QueuePool)


class Service(service.Service):
    """Reports for itself: the id is one for all services of a process else."""

    def report_state(self):
        service.Service.service_id = self.origin_service_id
        super().report_state()


def volume_services():
    for backend in CONF.enabled_backends:
        yield Service.create(host='%s@%s' % (CONF.host, backend),
                             service_name=backend, coordination=False,
                             binary=constants.VOLUME_BINARY)


def backup_service():
    importlib.import_module('cinder.cmd.backup')  # its options
    operations = utils.semaphore_factory(CONF.backup_max_operations,
                                         CONF.backup_workers)
    return Service.create(binary=constants.BACKUP_BINARY, coordination=False,
                          service_name='backup', process_number=1,
                          semaphore=operations)


def main(backup=False):
    # eventlet leaves the first thread unknown to threading.current_thread.
    original = importlib.import_module('__original_module_threading')
    original.current_thread.__globals__['_active'] = threading._active
    importlib.import_module('cinder.cmd.volume')  # options of backends
    objects.register_all()
    CONF(sys.argv[1:], project='cinder', version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, 'cinder')
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    coordination.COORDINATOR.start()
    rpc.init(CONF)
    volumes = list(volume_services())
    others = [backup_service()] if backup else []
    scheduler = Service.create(binary=constants.SCHEDULER_BINARY)
    # The scheduler waits for the figures of the backends, which wait for the
    # scheduler to ask: side by side.
    starting = [eventlet.spawn(s.start) for s in volumes + others + [scheduler]]
    for thread in starting:
        thread.wait()
    known = scheduler.manager.driver.host_manager.service_states
    deadline = time.monotonic() + FIGURES_MAX
    up = [v.host for v in volumes if v.manager.driver.initialized]
    while not known.keys() >= set(up) and time.monotonic() < deadline:
        eventlet.sleep(0.1)
    down = [v.host.partition('@')[2] for v in volumes
            if v.host not in up or v.host not in known]
    print('uninitialized=' + ','.join(down), flush=True)
    api = service.WSGIService('osapi_volume')
    api.start()
    threading.Event().wait()
