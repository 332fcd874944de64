# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The driver against a node, on Cinder's own test base.

OVGATE_URL, OVGATE_CA and OVGATE_TOKEN_FILE name the node. It has the vPools
one and two and two portals.
"""

import hashlib
import os
import subprocess
import tempfile
from unittest import mock
import uuid

from oslo_utils import units
import requests

from cinder import context
from cinder import exception
from cinder import objects
from cinder.tests.unit import test
from cinder.tests.unit import utils
from cinder.volume import configuration
from cinder.volume import qos_specs
from cinder.volume import volume_types

from ovgate_cinder import client
from ovgate_cinder import iscsi
from ovgate_cinder import options
from ovgate_cinder import qos

URL = os.environ['OVGATE_URL']
HOST = 'host@ovgate#one'


def connector(host):
    return {'host': host, 'initiator': 'iqn.2026-11.test:' + host,
            'multipath': True}


class DriverTestCase(test.TestCase):
    def setUp(self):
        super().setUp()
        self.ctxt = context.get_admin_context()
        self.driver = self.make_driver()
        self.driver.do_setup(self.ctxt)
        self.client = self.driver._client

    def make_driver(self, **values):
        conf = configuration.Configuration(options.OPTS, 'ovgate')
        settings = {'ovgate_api_urls': [URL], 'ovgate_retry_timeout': 5,
                    'ovgate_token_file': os.environ['OVGATE_TOKEN_FILE'],
                    'ovgate_ca_file': os.environ['OVGATE_CA'],
                    'ovgate_vpools': ['one', 'two'], 'ovgate_purge': True,
                    'volume_backend_name': 'ovgate', **values}
        made = iscsi.OVGateISCSIDriver(configuration=conf)
        for name, value in settings.items():
            self.override_config(name, value, group='ovgate')
        return made

    def volume(self, create=True, host=HOST, **kw):
        kw.setdefault('volume_type_id', None)
        v = utils.create_volume(self.ctxt, host=host, **kw)
        self.addCleanup(self.clean, v)
        if create:
            self.driver.create_volume(v)
        return v

    def clean(self, volume):
        vdisk = self.vdisk(volume)
        if vdisk:
            for s in self.driver._snapshots(vdisk['id']):
                self.client.delete(client.path(
                    'vdisks', vdisk['id'], 'snapshots', s['id']), force='true')
        self.driver.delete_volume(volume)

    def snapshot(self, volume, **kw):
        s = utils.create_snapshot(self.ctxt, volume.id, **kw)
        s.update(self.driver.create_snapshot(s) or {})
        s.save()
        return s

    def vdisk(self, volume):
        return self.client.find(client.path('vdisks', volume.name))

    def image(self, size=units.Gi):
        """A raw image with data at its start and near its end."""
        path = os.path.join(self.tmp(), 'image.raw')
        with open(path, 'wb') as f:
            f.write(os.urandom(3 << 20))
            f.seek(size - (1 << 20) - 512)
            f.write(os.urandom(1000))
            f.truncate(size)
        return path

    def tmp(self):
        d = tempfile.TemporaryDirectory()
        self.addCleanup(d.cleanup)
        return d.name

    def fill(self, volume, path):
        def fetch(ctxt, service, image_id, dest, *args, **kw):
            subprocess.check_call(['cp', '--sparse=always', path, dest])
        with mock.patch('cinder.image.image_utils.fetch_to_raw', fetch):
            self.driver.copy_image_to_volume(self.ctxt, volume, None, 'image')

    def content(self, volume):
        sums = []

        def upload(ctxt, service, meta, path, vol, **kw):
            sums.append(digest(path))
        with mock.patch('cinder.volume.volume_utils.upload_volume', upload):
            self.driver.copy_volume_to_image(self.ctxt, volume, None, {})
        return sums[0]


def digest(path):
    h = hashlib.sha256()
    with open(path, 'rb') as f:
        for part in iter(lambda: f.read(1 << 22), b''):
            h.update(part)
    return h.hexdigest()


class LosesAnswers(requests.adapters.HTTPAdapter):
    """Loses the answer of the first request that changes something."""

    lost = None

    def send(self, request, **kwargs):
        answer = super().send(request, **kwargs)
        if self.lost is None and request.method != 'GET':
            self.lost = request.path_url
            raise requests.exceptions.ConnectionError('connection reset')
        return answer


class SetupTest(DriverTestCase):
    def test_stats(self):
        self.driver.check_for_setup_error()
        stats = self.driver.get_volume_stats(True)
        self.assertEqual('iSCSI', stats['storage_protocol'])
        pools = {p['pool_name']: p for p in stats['pools']}
        self.assertEqual({'one', 'two'}, set(pools))
        before = pools['one']['provisioned_capacity_gb']
        self.assertGreater(pools['one']['total_capacity_gb'],
                           pools['one']['free_capacity_gb'])
        self.volume(size=3)
        pools = {p['pool_name']: p for p in
                 self.driver.get_volume_stats(True)['pools']}
        self.assertEqual(before + 3, pools['one']['provisioned_capacity_gb'])

    def test_nothing_configured(self):
        d = self.make_driver(ovgate_api_urls=[])
        self.assertRaisesRegex(exception.InvalidParameterValue,
                               'ovgate_api_urls', d.do_setup, self.ctxt)
        d = self.make_driver(ovgate_token_file=None)
        self.assertRaisesRegex(exception.InvalidParameterValue,
                               'ovgate token create', d.do_setup, self.ctxt)

    def test_unknown_vpool(self):
        d = self.make_driver(ovgate_vpools=['one', 'three'])
        d.do_setup(self.ctxt)
        self.assertRaisesRegex(exception.VolumeBackendAPIException,
                               'no vPool three; .*one, two',
                               d.check_for_setup_error)

    def test_wrong_token(self):
        d = self.make_driver(ovgate_token_file=None, ovgate_token='nobody')
        d.do_setup(self.ctxt)
        e = self.assertRaises(client.APIError, d.check_for_setup_error)
        self.assertEqual('unauthorized', e.code)
        self.assertNotIn('nobody', str(e))

    def test_certificate_is_verified(self):
        d = self.make_driver(ovgate_ca_file=None, ovgate_retry_timeout=0)
        d.do_setup(self.ctxt)
        self.assertRaisesRegex(client.Unreachable, 'ovgate_ca_file',
                               d.check_for_setup_error)

    def test_next_endpoint(self):
        d = self.make_driver(ovgate_api_urls=['https://127.0.0.1:1', URL])
        d.do_setup(self.ctxt)
        d.check_for_setup_error()
        self.assertEqual(1, d._client._first)


class FullTest(DriverTestCase):
    def limit(self, percent):
        self.client.call('PATCH', client.path('vpools', 'one'), {
            'settings': {'oversubscriptionPercent': percent}})

    def test_full_vpool_is_not_asked_again(self):
        v = self.volume(create=False, size=60000)
        self.limit(1)
        self.addCleanup(self.limit, 0)
        with mock.patch.object(self.client, '_send',
                               wraps=self.client._send) as send:
            e = self.assertRaises(client.APIError, self.driver.create_volume,
                                  v)
        self.assertEqual('no_space', e.code)
        self.assertIn('--oversubscription', str(e))
        creates = [c for c in send.call_args_list
                   if c.args[1:3] == ('POST', '/vdisks')]
        self.assertEqual(1, len(creates))
        self.assertIsNone(self.vdisk(v))


class ForgottenTest(DriverTestCase):
    """A node that was killed does not know what it made for a request."""

    def test_made_before(self):
        v = self.volume()
        vdisk = self.vdisk(v)
        self.driver.create_volume(v)
        s = self.snapshot(v)
        self.assertEqual(s.provider_id,
                         self.driver.create_snapshot(s)['provider_id'])
        copy = self.volume(create=False, size=2)
        for _again in range(2):
            self.driver.create_volume_from_snapshot(copy, s)
        self.assertEqual(vdisk['id'], self.vdisk(v)['id'])

    def test_of_others(self):
        v = self.volume(create=False)
        self.driver._client.post('/vdisks', {
            'name': v.name, 'vpool': self.driver._pool(v.host),
            'size': units.Gi})
        self.assertRaises(exception.VolumeBackendAPIException,
                          self.driver.create_volume, v)
        self.driver._client.delete(client.path('vdisks', v.name))


class LostAnswerTest(DriverTestCase):
    def lose(self):
        adapter = LosesAnswers()
        self.client._session.mount('https://', adapter)
        return adapter

    def test_create_extend_snapshot_delete(self):
        v = self.volume(create=False)
        lost = self.lose()
        self.driver.create_volume(v)
        self.assertEqual('/api/v1/vdisks', lost.lost)
        self.lose()
        self.driver.extend_volume(v, 2)
        self.assertEqual(2 * units.Gi, self.vdisk(v)['size'])
        lost = self.lose()
        s = self.snapshot(v)
        self.assertTrue(lost.lost.endswith('/snapshots'))
        self.assertEqual([s.provider_id],
                         [x['id'] for x in self.driver._snapshots(v.name)])
        lost = self.lose()
        copy = self.volume(create=False, size=2)
        self.driver.create_volume_from_snapshot(copy, s)
        self.assertTrue(lost.lost.endswith('/clone'))
        self.lose()
        self.driver.delete_snapshot(s)
        self.lose()
        self.driver.delete_volume(v)
        self.assertIsNone(self.vdisk(v))

    def test_attach(self):
        v = self.volume()
        lost = self.lose()
        self.driver.initialize_connection(v, connector('a'))
        self.assertTrue(lost.lost.endswith('/publish'))
        self.lose()
        self.driver.terminate_connection(v, connector('a'))
        self.assertIsNone(self.vdisk(v)['published'])


class QoSTest(test.TestCase):
    def test_limits(self):
        for specs, iops, rate in (
                ({}, 0, 0),
                ({'total_iops_sec': '500'}, 500, 0),
                ({'total_iops_sec': '5'}, 10, 0),
                ({'read_iops_sec': '100', 'write_iops_sec': '50'}, 150, 0),
                ({'total_iops_sec_per_gb': '10'}, 40, 0),
                ({'total_iops_sec_per_gb': '10',
                  'total_iops_sec_per_gb_min': '90'}, 90, 0),
                ({'total_iops_sec_per_gb': '10', 'total_iops_sec': '30'},
                 30, 0),
                ({'total_bytes_sec_per_gb': '1048576'}, 0, 4 << 20),
                ({'total_bytes_sec': '1'}, 0, 1 << 20)):
            self.assertEqual(
                {'iops': iops, 'bytesPerSecond': rate, 'burstMs': 0},
                qos.limits(specs, 4), specs)

    def test_refused(self):
        for specs, why in (
                ({'read_iops_sec': '100'}, 'total_iops_sec'),
                ({'total_bytes_sec': '-1'}, 'total_bytes_sec=-1'),
                ({'total_iops_sec': 'many'}, 'total_iops_sec=many')):
            self.assertRaisesRegex(exception.InvalidInput, why,
                                   qos.limits, specs, 4)


class VolumeTest(DriverTestCase):
    def test_create_extend_delete(self):
        v = self.volume()
        d = self.vdisk(v)
        self.assertEqual(units.Gi, d['size'])
        self.assertEqual({'cinder-volume': v.id,
                          'cinder-project': v.project_id or ''}, d['labels'])
        self.driver.extend_volume(v, 3)
        self.assertEqual(3 * units.Gi, self.vdisk(v)['size'])
        self.driver.delete_volume(v)
        self.assertIsNone(self.vdisk(v))
        self.driver.delete_volume(v)

    def test_image_snapshot_clone(self):
        v = self.volume()
        first, second = self.image(), self.image()
        wanted = digest(first)
        self.fill(v, first)
        self.assertEqual(wanted, self.content(v))
        s = self.snapshot(v)
        self.assertRaisesRegex(exception.ImageCopyFailure, 'snapshots',
                               self.fill, v, second)
        self.assertEqual(wanted, self.content(v))

        copy = self.volume(create=False, size=2)
        self.driver.create_volume_from_snapshot(copy, s)
        self.assertEqual(2 * units.Gi, self.vdisk(copy)['size'])
        clone = self.volume(create=False, size=1)
        self.driver.create_cloned_volume(clone, v)
        self.assertEqual(wanted, self.content(clone))

        elsewhere = self.volume(create=False, host='host@ovgate#two')
        self.driver.create_volume_from_snapshot(elsewhere, s)
        self.assertEqual('two', self.vdisk(elsewhere)['vpool'])
        self.assertEqual(wanted, self.content(elsewhere))

        self.driver.delete_snapshot(s)
        self.driver.delete_snapshot(s)
        self.assertEqual([], self.driver._snapshots(v.name))
        self.driver.delete_volume(v)
        self.assertEqual(wanted, self.content(clone))

    def test_revert(self):
        v = self.volume()
        s = self.snapshot(v)
        # Cinder's manager makes one before it asks, and deletes it after.
        backup = self.snapshot(
            v, display_name='[revert] volume %s backup snapshot' % v.id)
        self.driver.revert_to_snapshot(self.ctxt, v, s)
        self.assertEqual([s.name],
                         [x['name'] for x in self.driver._snapshots(v.name)])
        self.driver.delete_snapshot(backup)
        newer = self.snapshot(v)
        self.assertRaises(client.APIError, self.driver.revert_to_snapshot,
                          self.ctxt, v, s)
        self.assertIn(newer.name,
                      [x['name'] for x in self.driver._snapshots(v.name)])

    def test_retype_and_migrate(self):
        specs = qos_specs.create(self.ctxt, 'fast', {
            'consumer': 'back-end', 'total_iops_sec_per_gb': '100',
            'total_bytes_sec': '2097152'})
        kind = volume_types.create(self.ctxt, 'fast', {})
        qos_specs.associate_qos_with_type(self.ctxt, specs.id, kind.id)
        v = self.volume(size=2)
        self.driver.get_volume_stats(True)
        host = {'host': 'host@ovgate#two',
                'capabilities': self.driver._stats['pools'][1]}
        self.assertEqual((True, None), self.driver.retype(
            self.ctxt, v, volume_types.get_volume_type(self.ctxt, kind.id),
            {}, host))
        d = self.vdisk(v)
        self.assertEqual('two', d['vpool'])
        self.assertEqual((200, 2097152),
                         (d['qos']['iops'], d['qos']['bytesPerSecond']))
        host = dict(host, host=HOST)
        self.assertEqual((True, None),
                         self.driver.migrate_volume(self.ctxt, v, host))
        self.assertEqual('one', self.vdisk(v)['vpool'])
        host['capabilities'] = {'location_info': 'other'}
        self.assertEqual((False, None),
                         self.driver.migrate_volume(self.ctxt, v, host))

    def test_manage(self):
        name = 'found-' + uuid.uuid4().hex
        self.client.create('/vdisks', {'name': name, 'vpool': 'one',
                                       'size': units.Gi + 65536})
        v = self.volume(create=False, size=2)
        ref = {'source-name': name}
        listed = self.driver.get_manageable_volumes(
            [], None, 1000, 0, ['size'], ['asc'])
        self.assertEqual([True], [e['safe_to_manage'] for e in listed
                                  if e['reference'] == ref])
        objects.ManageableVolumeList.from_primitives(self.ctxt, listed)
        self.assertEqual(2, self.driver.manage_existing_get_size(v, ref))
        self.driver.manage_existing(v, ref)
        self.assertEqual(2 * units.Gi, self.vdisk(v)['size'])
        self.assertRaises(exception.ManageExistingInvalidReference,
                          self.driver.manage_existing_get_size, v, ref)
        self.driver.unmanage(v)
        self.assertEqual({}, self.vdisk(v)['labels'])

    def test_manage_snapshot(self):
        v = self.volume(size=2)
        made = self.client.create(
            client.path('vdisks', v.name, 'snapshots'), {'name': 'nightly'})
        s = utils.create_snapshot(self.ctxt, v.id)
        ref = {'source-name': 'nightly'}
        self.assertEqual(
            2, self.driver.manage_existing_snapshot_get_size(s, ref))
        s.update(self.driver.manage_existing_snapshot(s, ref))
        self.assertEqual(made['id'], s.provider_id)
        listed = self.driver.get_manageable_snapshots(
            [s], None, 1000, 0, ['size'], ['asc'])
        self.assertEqual([s.id], [e['cinder_id'] for e in listed
                                  if e['reference'] == ref])
        objects.ManageableSnapshotList.from_primitives(self.ctxt, listed)
        real = self.driver._client.list

        def late(where, **params):
            yield from real(where, **params)
            if where == '/vdisks':
                yield {'id': str(uuid.uuid4()), 'name': 'gone since',
                       'labels': {iscsi.LABEL_VOLUME: 'gone'}}
        with mock.patch.object(self.driver._client, 'list', late):
            self.assertEqual(listed, self.driver.get_manageable_snapshots(
                [s], None, 1000, 0, ['size'], ['asc']))
        self.driver.unmanage_snapshot(s)
        self.assertRaises(
            exception.ManageExistingInvalidReference,
            self.driver.manage_existing_snapshot, s, {'source-name': 'none'})
        self.driver.delete_snapshot(s)

    def test_migrated_by_cinder(self):
        v = self.volume()
        new = self.volume(host='host@ovgate#two')
        before = self.vdisk(new)['id']
        self.assertEqual(
            new.id, self.driver.update_migrated_volume(
                self.ctxt, v, new, 'available')['_name_id'])
        self.driver.delete_volume(v)
        self.assertIsNone(self.driver.update_migrated_volume(
            self.ctxt, v, new, 'available')['_name_id'])
        self.assertEqual(before, self.vdisk(v)['id'])
        self.assertEqual(v.id, self.vdisk(v)['labels']['cinder-volume'])


class AttachTest(DriverTestCase):
    def attach(self, volume, host):
        """What Cinder does: the attachment keeps what was answered."""
        info = self.driver.initialize_connection(volume, connector(host))
        a = objects.VolumeAttachment(
            context=self.ctxt, volume_id=volume.id, attached_host=host,
            attach_status='attached')
        a.create()
        a.connector = connector(host)
        a.connection_info = info['data']
        a.save()
        volume.refresh()
        return info['data']

    def detach(self, volume, host):
        shared = self.driver.terminate_connection(volume, connector(host))
        for a in volume.volume_attachment:
            if a.attached_host == host:
                a.destroy()
                break
        volume.refresh()
        return shared

    def test_two_hosts(self):
        v = self.volume(multiattach=True)
        one = self.attach(v, 'a')
        self.assertEqual(2, len(set(one['target_portals'])))
        again = self.attach(v, 'a')
        self.assertEqual(one['auth_password'], again['auth_password'])
        two = self.attach(v, 'b')
        self.assertNotEqual(one['auth_password'], two['auth_password'])
        self.login(one, 'a')
        self.login(two, 'b')

        self.assertTrue(self.detach(v, 'a'))
        self.login(one, 'a')
        self.assertTrue(self.detach(v, 'a'))
        self.assertRaises(subprocess.CalledProcessError,
                          self.login, one, 'a')
        self.login(two, 'b')
        self.assertFalse(self.detach(v, 'b'))
        self.assertIsNone(self.vdisk(v)['published'])
        self.assertFalse(self.driver.terminate_connection(v, connector('b')))
        self.assertFalse(self.driver.terminate_connection(v, None))

    def login(self, data, host):
        url = 'iscsi://%s/%s/%d' % (
            data['target_portal'], data['target_iqn'], data['target_lun'])
        chap = {'LIBISCSI_CHAP_USERNAME': data['auth_username'],
                'LIBISCSI_CHAP_PASSWORD': data['auth_password']}
        subprocess.run(
            ['iscsi-inq', '-i', connector(host)['initiator'], url],
            check=True, capture_output=True, timeout=30,
            env=dict(os.environ, **chap))

    def test_secret_is_of_one_attachment(self):
        v = self.volume()
        one = self.attach(v, 'a')
        self.detach(v, 'a')
        two = self.attach(v, 'a')
        self.assertNotEqual(one['auth_password'], two['auth_password'])
        self.driver.terminate_connection(v, None)
        self.assertIsNone(self.vdisk(v)['published'])


class GroupTest(DriverTestCase):
    def test_group_snapshot(self):
        self.mock_object(iscsi.volume_utils, 'is_group_a_cg_snapshot_type',
                         return_value=True)
        sources = [self.volume(), self.volume()]
        group = utils.create_group(self.ctxt, group_type_id=str(uuid.uuid4()))
        gs = utils.create_group_snapshot(self.ctxt, group.id)
        snaps = [utils.create_snapshot(self.ctxt, v.id) for v in sources]
        _model, updates = self.driver.create_group_snapshot(
            self.ctxt, gs, snaps)
        for s, u in zip(snaps, updates):
            s.update(u)
            found = self.driver._snapshots(s.volume.name)
            self.assertEqual([2], [x['group'] for x in found])
        copies = [self.volume(create=False), self.volume(create=False)]
        self.driver.create_group_from_src(
            self.ctxt, group, copies, group_snapshot=gs, snapshots=snaps)
        self.driver.delete_group_snapshot(self.ctxt, gs, snaps)
        clones = [self.volume(create=False), self.volume(create=False)]
        self.driver.create_group_from_src(
            self.ctxt, group, clones, source_group=group, source_vols=copies)
        for v in sources + copies:
            self.assertEqual([], self.driver._snapshots(v.name))
        self.driver.delete_group(self.ctxt, group, clones)
        self.assertEqual([None, None], [self.vdisk(v) for v in clones])
