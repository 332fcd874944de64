# Licensed under the Apache License, Version 2.0; see LICENSE.
"""iSCSI driver: a volume is a vDisk, a pool of the backend is a vPool.

Names are the key between both sides. The vDisk of a volume has the volume's
name, made of its name_id, so that it outlives a migration and an image that
is copied in; labels say for whom it is. Every attached host has a group of its
own on the vDisk's target, with a CHAP secret that is drawn when the host has
no other attachment of the volume.
"""

import hashlib
import math

from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import units

from cinder.common import constants
from cinder import context as cinder_context
from cinder import coordination
from cinder import exception
from cinder.i18n import _
from cinder.image import image_utils
from cinder import interface
from cinder import objects
from cinder.volume import configuration
from cinder.volume import driver
from cinder.volume import qos_specs
from cinder.volume import volume_types
from cinder.volume import volume_utils

from ovgate_cinder import client
from ovgate_cinder import options
from ovgate_cinder import qos

LOG = logging.getLogger(__name__)
CONF = cfg.CONF
CONF.register_opts(options.OPTS, group=configuration.SHARED_CONF_GROUP)

LABEL_VOLUME = 'cinder-volume'
LABEL_PROJECT = 'cinder-project'
LABEL_SNAPSHOT = 'cinder-snapshot'
SECRET_LENGTH = 16      # the most that Windows takes
path = client.path


@interface.volumedriver
class OVGateISCSIDriver(driver.ISCSIDriver):
    """Volumes on ovgate over iSCSI.

    Version history:

        1.0.0 - first version
    """

    VERSION = '1.0.0'
    CI_WIKI_NAME = 'ovgate_CI'
    SUPPORTED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(options.OPTS)
        self._client = None

    @staticmethod
    def get_driver_options():
        return options.OPTS

    # Set-up and figures.

    def do_setup(self, context):
        conf = self.configuration
        if not conf.ovgate_api_urls:
            raise exception.InvalidParameterValue(err=_(
                'ovgate_api_urls is not set: give the addresses of the nodes, '
                'https://HOST:8443'))
        if not (conf.ovgate_token or conf.ovgate_token_file):
            raise exception.InvalidParameterValue(err=_(
                'neither ovgate_token_file nor ovgate_token is set: make a '
                'token with ovgate token create'))
        self._client = client.Client(
            conf.ovgate_api_urls, conf.ovgate_token, conf.ovgate_token_file,
            conf.ovgate_tls_verify, conf.ovgate_ca_file,
            conf.ovgate_request_timeout, conf.ovgate_retry_timeout)
        self._client.load_token()

    def check_for_setup_error(self):
        self._client.get('/version')
        found = {p['name'] for p in self._client.list('/vpools')}
        missing = [p for p in self.configuration.ovgate_vpools
                   if p not in found]
        if missing or not found:
            raise exception.VolumeBackendAPIException(data=_(
                'ovgate has no vPool %(missing)s; ovgate_vpools may name: '
                '%(found)s') % {'missing': ', '.join(missing) or 'at all',
                                'found': ', '.join(sorted(found)) or 'none'})
        if not self._client.get('/portals')['items']:
            raise exception.VolumeBackendAPIException(data=_(
                'ovgate has no iSCSI portal; start its nodes with --iscsi'))

    def _vpools(self):
        mine = self.configuration.ovgate_vpools
        return [p for p in self._client.list('/vpools')
                if not mine or p['name'] in mine]

    def _location(self):
        return 'ovgate:%s' % self._client.get('/status')['cluster']

    def _pool_stats(self, vpool, location):
        conf = self.configuration
        if vpool['total']:
            total, free = vpool['total'], vpool['free']
        else:
            total = conf.ovgate_store_capacity_gb * units.Gi
            free = max(total - vpool['stored'], 0)
        if vpool['state'] == 'offline':
            free = 0
        ratio = volume_utils.get_max_over_subscription_ratio(
            conf.max_over_subscription_ratio, True)
        bound = vpool['settings']['oversubscriptionPercent']
        if bound and ratio != 'auto':
            ratio = max(1.0, min(float(ratio), bound / 100))
        return {
            'pool_name': vpool['name'],
            'total_capacity_gb': round(total / units.Gi, 2),
            'free_capacity_gb': round(free / units.Gi, 2),
            'provisioned_capacity_gb':
                round(vpool['provisioned'] / units.Gi, 2),
            'max_over_subscription_ratio': ratio,
            'reserved_percentage': conf.reserved_percentage,
            'thin_provisioning_support': True,
            'thick_provisioning_support': False,
            'total_volumes': vpool['vdisks'],
            'location_info': location,
            'QoS_support': True,
            'multiattach': True,
            'online_extend_support': True,
            'sparse_copy_volume': True,
            'consistent_group_snapshot_enabled': True,
            'backend_state':
                'down' if vpool['state'] == 'offline' else 'up',
            'filter_function': self.get_filter_function(),
            'goodness_function': self.get_goodness_function(),
        }

    def _update_volume_stats(self):
        location = self._location()
        self._stats = {
            'volume_backend_name':
                self.configuration.safe_get('volume_backend_name') or 'ovgate',
            'vendor_name': 'ovgate',
            'driver_version': self.VERSION,
            'storage_protocol': constants.ISCSI,
            'pools': [self._pool_stats(p, location) for p in self._vpools()],
        }

    # vDisks of volumes.

    def _pool(self, host):
        name = volume_utils.extract_host(host, 'pool')
        if not name:
            raise exception.InvalidHost(reason=_(
                'host %s names no pool; a volume of ovgate is at '
                'HOST@BACKEND#VPOOL') % host)
        return name

    def _labels(self, volume):
        return {LABEL_VOLUME: volume.id,
                LABEL_PROJECT: volume.project_id or ''}

    def _specs(self, type_id):
        """QoS specs and extra specs of a type that the backend keeps."""
        if not type_id:
            return {}
        admin = cinder_context.get_admin_context()
        volume_type = volume_types.get_volume_type(admin, type_id)
        specs = {}
        for key, value in (volume_type.get('extra_specs') or {}).items():
            scope, _sep, name = key.partition(':')
            if scope in ('qos', 'ovgate') and name in qos.KEYS:
                specs[name] = value
        if volume_type.get('qos_specs_id'):
            found = qos_specs.get_qos_specs(admin, volume_type['qos_specs_id'])
            if found['consumer'] in ('back-end', 'both'):
                specs.update((k, v) for k, v in found['specs'].items()
                             if k in qos.KEYS)
        return specs

    def _limits(self, volume):
        return qos.limits(self._specs(volume.volume_type_id), volume.size)

    def _set_qos(self, name, type_id, size_gb):
        limits = qos.limits(self._specs(type_id), size_gb)
        now = self._client.get(path('vdisks', name))['qos']
        if any(limits.values()) or (now and any(now.values())):
            self._client.put(path('vdisks', name, 'qos'), limits)

    def _finish(self, volume, vdisk, limits):
        """Bring a new vDisk where its volume should be, as it should be.

        What cannot be finished is deleted: Cinder counts it as not made.
        """
        try:
            pool = self._pool(volume.host)
            if vdisk['vpool'] != pool:
                self._place(volume.name, pool)
            if any(limits.values()) or (vdisk['qos'] and
                                        any(vdisk['qos'].values())):
                self._client.put(path('vdisks', volume.name, 'qos'), limits)
        except Exception:
            LOG.error('vDisk %s cannot be finished, it is deleted again',
                      volume.name)
            self._client.delete(path('vdisks', volume.name), purge='true')
            raise

    def _make(self, where, body, find):
        """Create an object, or return the one that was.

        A node that was killed after it had made one, and before it answered,
        does not know that it is asked again: find tells by its labels.
        """
        try:
            return self._client.create(where, body)
        except client.APIError as e:
            made = find() if e.code == 'exists' else None
            if made is None:
                raise
            LOG.warning('%s was made before', body['name'])
            return made

    def _made(self, volume):
        for vdisk in self._client.list('/vdisks', q=volume.name):
            if (vdisk['name'] == volume.name and
                    vdisk['labels'].get(LABEL_VOLUME) == volume.id):
                return vdisk

    def create_volume(self, volume):
        limits = self._limits(volume)
        made = self._make('/vdisks', {
            'name': volume.name, 'vpool': self._pool(volume.host),
            'size': volume.size * units.Gi, 'labels': self._labels(volume)},
            lambda: self._made(volume))
        self._finish(volume, made, limits)

    def _clone(self, volume, source, **point):
        limits = self._limits(volume)
        made = self._make(path('vdisks', source, 'clone'), dict(
            point, name=volume.name, size=volume.size * units.Gi,
            labels=self._labels(volume)), lambda: self._made(volume))
        self._finish(volume, made, limits)

    def create_cloned_volume(self, volume, src_vref):
        self._clone(volume, src_vref.name)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._clone(volume, snapshot.volume.name,
                    snapshot=self._snapshot_ref(snapshot))

    def delete_volume(self, volume):
        # Left by an image that was not copied in to its end.
        self._client.delete(path('vdisks', volume.name + '-image'),
                            purge='true')
        vdisk = self._client.find(path('vdisks', volume.name))
        if vdisk is None:
            LOG.warning('vDisk %s of volume %s is gone already',
                        volume.name, volume.id)
            return
        # Cinder deletes no volume that is attached: what still is published
        # was left by an attachment whose end was not heard.
        if vdisk['published']:
            self._unpublish(volume.name)
        params = {'purge': 'true'} if self.configuration.ovgate_purge else {}
        self._client.delete(path('vdisks', volume.name), **params)

    def extend_volume(self, volume, new_size):
        self._client.patch(path('vdisks', volume.name),
                           {'size': new_size * units.Gi})
        self._set_qos(volume.name, volume.volume_type_id, new_size)

    # Snapshots.

    def _snapshot_ref(self, snapshot):
        return snapshot.provider_id or snapshot.name

    def _snapshots(self, vdisk):
        return list(self._client.list(path('vdisks', vdisk, 'snapshots')))

    def create_snapshot(self, snapshot):
        vdisk = snapshot.volume.name
        made = self._make(
            path('vdisks', vdisk, 'snapshots'),
            {'name': snapshot.name, 'sticky': True,
             'labels': {LABEL_SNAPSHOT: snapshot.id,
                        LABEL_PROJECT: snapshot.project_id or ''}},
            lambda: next((s for s in self._snapshots(vdisk)
                          if s['labels'].get(LABEL_SNAPSHOT) == snapshot.id),
                         None))
        return {'provider_id': made['id']}

    def delete_snapshot(self, snapshot):
        self._client.delete(path('vdisks', snapshot.volume.name, 'snapshots',
                                 self._snapshot_ref(snapshot)), force='true')

    def revert_to_snapshot(self, context, volume, snapshot):
        """Roll back, without the snapshot that Cinder made of what is lost.

        A rollback is done or not done at all, so that nobody needs it; any
        other newer snapshot is a reason to refuse. Cinder deletes it, too,
        which does no harm.
        """
        backup = '[revert] volume %s backup snapshot' % volume.id
        for s in objects.SnapshotList.get_all_for_volume(context, volume.id):
            if s.display_name == backup and s.id != snapshot.id:
                self.delete_snapshot(s)
        self._client.post(path('vdisks', volume.name, 'rollback'),
                          {'snapshot': self._snapshot_ref(snapshot)})

    # Attachments.

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        self._unpublish(volume.name)

    def _unpublish(self, name):
        try:
            self._client.post(path('vdisks', name, 'unpublish'),
                              {'force': True})
        except client.APIError as e:
            if e.status != 404:
                raise

    @staticmethod
    def _group(initiator):
        return 'cinder-' + hashlib.sha256(initiator.encode()).hexdigest()[:32]

    @staticmethod
    def _attachments(volume, connector):
        """The attachments of a volume to the host of a connector."""
        found = []
        for a in volume.volume_attachment or []:
            theirs = (a.connector or {}).get('initiator')
            if theirs == connector['initiator'] or (
                    not theirs and a.attached_host and
                    a.attached_host == connector.get('host')):
                found.append(a)
        return found

    def _admit(self, volume, iqn, groups, connector):
        """Let a host in; return the user and secret it proves itself with.

        While the host has another attachment of the volume, that one's secret
        stays: a host has one session with a target, for all of them.
        """
        initiator = connector['initiator']
        name = self._group(initiator)
        secret = None
        for a in self._attachments(volume, connector):
            info = a.connection_info or {}
            if info.get('target_iqn') == iqn and info.get('auth_password'):
                secret = info['auth_password']
        if name in groups:
            body = {'initiators': [initiator]}
            where, send = path('targets', iqn, 'groups', name), 'patch'
        else:
            body = {'name': name, 'initiators': [initiator]}
            where, send = path('targets', iqn, 'groups'), 'create'
        body['chapSecret'] = secret or volume_utils.generate_password(
            length=SECRET_LENGTH)
        answer = getattr(self._client, send)(where, body)
        return answer['group']['chapUser'], body['chapSecret']

    @coordination.synchronized('ovgate-{volume.id}')
    def initialize_connection(self, volume, connector, **kwargs):
        published = self._client.post(path('vdisks', volume.name, 'publish'))
        iqn, lun = published['iqn'], published['lun']
        target = self._client.get(path('targets', iqn))
        user, secret = self._admit(
            volume, iqn, {g['name'] for g in target['groups']}, connector)
        portals = [p['address'] for p in target['portals']]
        if not portals:
            raise exception.VolumeBackendAPIException(data=_(
                'ovgate: target %s has no portal; see ovgate target show')
                % iqn)
        data = {'target_discovered': False, 'target_iqn': iqn,
                'target_portal': portals[0], 'target_lun': lun,
                'volume_id': volume.id, 'discard': True,
                'auth_method': 'CHAP', 'auth_username': user,
                'auth_password': secret}
        if connector.get('multipath') or len(portals) > 1:
            data['target_iqns'] = [iqn] * len(portals)
            data['target_portals'] = portals
            data['target_luns'] = [lun] * len(portals)
        return {'driver_volume_type': 'iscsi', 'data': data}

    @coordination.synchronized('ovgate-{volume.id}')
    def terminate_connection(self, volume, connector, **kwargs):
        """End an attachment; whether others keep the volume published.

        With no connector, all of them.
        """
        if not connector or not connector.get('initiator'):
            self._unpublish(volume.name)
            return False
        if len(self._attachments(volume, connector)) > 1:
            return True
        vdisk = self._client.find(path('vdisks', volume.name))
        if not vdisk or not vdisk['published']:
            return False
        iqn = vdisk['published']['iqn']
        self._client.delete(path('targets', iqn, 'groups',
                                 self._group(connector['initiator'])),
                            force='true')
        target = self._client.find(path('targets', iqn))
        if target and any(g['initiators'] or g['any']
                          for g in target['groups']):
            return True
        self._unpublish(volume.name)
        return False

    # Images, through the API: this host needs no initiator.

    def copy_image_to_volume(self, context, volume, image_service, image_id,
                             disable_sparse=False):
        """Fill a vDisk with an image, beside the one that it replaces."""
        with image_utils.temporary_file() as raw:
            image_utils.fetch_to_raw(
                context, image_service, image_id, raw,
                self.configuration.volume_dd_blocksize, size=volume.size,
                run_as_root=False)
            if self._snapshots(volume.name):
                raise exception.ImageCopyFailure(reason=_(
                    'vDisk %s has snapshots, which would be lost; delete them')
                    % volume.name)
            filling = volume.name + '-image'
            self._client.delete(path('vdisks', filling), purge='true')
            self._import(volume, filling, raw)
        self._client.delete(path('vdisks', volume.name), purge='true')
        self._client.patch(path('vdisks', filling), {'name': volume.name})
        self._set_qos(volume.name, volume.volume_type_id, volume.size)

    def _import(self, volume, name, raw):
        transfer = self._client.create('/imports', {
            'name': name, 'vpool': self._pool(volume.host),
            'size': volume.size * units.Gi, 'labels': self._labels(volume)})
        where = path('imports', transfer['id'])
        zeros = bytes(client.CHUNK)
        try:
            with open(raw, 'rb') as f:
                offset = 0
                while True:
                    part = f.read(client.CHUNK)
                    if not part:
                        break
                    part += bytes(-len(part) % 512)
                    if part != zeros[:len(part)]:
                        self._client.put(where + '/data', data=part,
                                         params={'offset': offset})
                    elif offset % (256 * client.CHUNK) == 0:
                        self._client.get(where)  # zeros keep it in use
                    offset += len(part)
            self._client.post(where + '/finish', retry=False)
        except Exception:
            self._client.delete(where)
            raise

    def copy_volume_to_image(self, context, volume, image_service, image_meta):
        with image_utils.temporary_file() as raw:
            self._export(volume, raw)
            volume_utils.upload_volume(context, image_service, image_meta,
                                       raw, volume, run_as_root=False)

    def _export(self, volume, raw):
        transfer = self._client.create(
            path('vdisks', volume.name, 'exports'), {})
        where = path('exports', transfer['id'])
        try:
            with open(raw, 'r+b') as f:
                f.truncate(transfer['size'])
                start = 0
                while start is not None:
                    page = self._client.get(where + '/extents', offset=start)
                    for extent in page['items']:
                        self._read(where, f, extent)
                    start = page['next']
        finally:
            self._client.delete(where)

    def _read(self, where, f, extent):
        offset, end = extent['offset'], extent['offset'] + extent['length']
        while offset < end:
            n = min(client.CHUNK, end - offset)
            part = self._client.get(where + '/data', offset=offset, length=n)
            if len(part) != n:
                raise exception.VolumeBackendAPIException(data=_(
                    'ovgate: %(n)d bytes at %(offset)d were answered by '
                    '%(got)d') % {'n': n, 'offset': offset, 'got': len(part)})
            f.seek(offset)
            f.write(part)
            offset += n

    def clone_image(self, context, volume, image_location, image_meta,
                    image_service):
        # Images that are volumes, and those in the image-volume cache, are
        # cloned by Cinder with create_cloned_volume.
        return None, False

    # Retype and migration.

    def _place(self, name, pool):
        """Bring a vDisk to a vPool; what it inherits is copied first."""
        where = path('vdisks', name)
        vdisk = self._client.get(where)
        if vdisk['vpool'] == pool:
            return
        timeout = self.configuration.ovgate_move_timeout
        if vdisk['parent']:
            self._client.post(where + '/flatten')
            self._client.wait(where, lambda d: not d['flatten'], timeout)
        self._client.post(where + '/move', {'vpool': pool})
        vdisk = self._client.wait(
            where, lambda d: not d['move'] or d['move']['failed'], timeout)
        if vdisk['move']:
            reason = vdisk['move']['failed']
            self._client.delete(where + '/move')
            raise exception.VolumeBackendAPIException(data=_(
                'ovgate: the move of vDisk %(name)s to vPool %(pool)s was '
                'given up: %(reason)s') % {'name': name, 'pool': pool,
                                           'reason': reason})

    def _is_mine(self, host):
        return (host.get('capabilities') or {}).get('location_info') == \
            self._location()

    def _try_place(self, volume, host):
        """Whether the vDisk is in the pool of a host, moved if need be."""
        if not self._is_mine(host):
            return False
        try:
            self._place(volume.name, self._pool(host['host']))
        except client.APIError as e:
            if e.status != 409:
                raise
            LOG.warning('volume %s is not moved by ovgate: %s', volume.id, e)
            return False
        return True

    def retype(self, context, volume, new_type, diff, host):
        if (diff or {}).get('encryption'):
            if any(a != b for a, b in diff['encryption'].values()):
                return False, None
        specs = self._specs(new_type['id'])
        qos.limits(specs, volume.size)
        if not self._try_place(volume, host):
            return False, None
        self._set_qos(volume.name, new_type['id'], volume.size)
        return True, None

    def migrate_volume(self, context, volume, host):
        return self._try_place(volume, host), None

    def update_migrated_volume(self, context, volume, new_volume,
                               original_volume_status):
        """Give the vDisk that was copied to the name of the volume."""
        wanted = CONF.volume_name_template % volume.id
        # Names are unique in a vPool only. The vDisk that was copied from has
        # this one until Cinder deletes it, if it is on these nodes too.
        if original_volume_status == 'available' and not self._client.find(
                path('vdisks', wanted)):
            self._client.patch(path('vdisks', new_volume.name),
                               {'name': wanted,
                                'labels': self._labels(volume)})
            return {'_name_id': None, 'provider_location': None}
        return {'_name_id': new_volume._name_id or new_volume.id,
                'provider_location': None}

    # Volumes and snapshots that exist.

    @staticmethod
    def _reference(ref):
        name = ref.get('source-name') or ref.get('source-id')
        if not name:
            raise exception.ManageExistingInvalidReference(
                existing_ref=ref, reason=_('it has neither source-name nor '
                                           'source-id'))
        return name

    def _existing(self, volume, ref):
        vdisk = self._client.find(path('vdisks', self._reference(ref)))
        if vdisk is None:
            raise exception.ManageExistingInvalidReference(
                existing_ref=ref, reason=_('there is no such vDisk'))
        reason = self._unsafe(vdisk)
        pool = self._pool(volume.host)
        if not reason and vdisk['vpool'] != pool:
            reason = _('it is in vPool %(its)s, not in %(pool)s') % {
                'its': vdisk['vpool'], 'pool': pool}
        if reason:
            raise exception.ManageExistingInvalidReference(
                existing_ref=ref, reason=reason)
        return vdisk

    @staticmethod
    def _unsafe(vdisk):
        if vdisk['labels'].get(LABEL_VOLUME):
            return _('it is volume %s') % vdisk['labels'][LABEL_VOLUME]
        if vdisk['published']:
            return _('it is published; unpublish it first')
        if vdisk['state'] not in ('running', 'degraded', 'stalled'):
            return _('its state is %s') % vdisk['state']
        return None

    def manage_existing_get_size(self, volume, existing_ref):
        vdisk = self._existing(volume, existing_ref)
        return math.ceil(vdisk['size'] / units.Gi)

    def manage_existing(self, volume, existing_ref):
        """Take a vDisk over; it grows to whole GiB."""
        vdisk = self._existing(volume, existing_ref)
        size = math.ceil(vdisk['size'] / units.Gi)
        qos.limits(self._specs(volume.volume_type_id), size)
        self._client.patch(path('vdisks', vdisk['id']), {
            'name': volume.name, 'size': size * units.Gi,
            'labels': dict(vdisk['labels'], **self._labels(volume))})
        self._set_qos(volume.name, volume.volume_type_id, size)

    def unmanage(self, volume):
        """Take Cinder's labels off; name and data stay."""
        where = path('vdisks', volume.name)
        vdisk = self._client.find(where)
        if vdisk:
            self._client.patch(where, {'labels': {
                k: v for k, v in vdisk['labels'].items()
                if k not in (LABEL_VOLUME, LABEL_PROJECT)}})

    def get_manageable_volumes(self, cinder_volumes, marker, limit, offset,
                               sort_keys, sort_dirs):
        known = {v['name']: v['id'] for v in cinder_volumes}
        entries = []
        for pool in self._vpools():
            for d in self._client.list('/vdisks', vpool=pool['name']):
                volume_id = known.get(d['name'])
                reason = _('already managed') if volume_id else \
                    self._unsafe(d)
                entries.append({
                    'reference': {'source-name': d['name']},
                    'size': math.ceil(d['size'] / units.Gi),
                    'safe_to_manage': reason is None,
                    'reason_not_safe': reason,
                    'cinder_id': volume_id,
                    'extra_info': {'id': d['id'], 'vpool': d['vpool']},
                })
        return volume_utils.paginate_entries_list(
            entries, marker, limit, offset, sort_keys, sort_dirs)

    def _existing_snapshot(self, snapshot, ref):
        name = self._reference(ref)
        for s in self._snapshots(snapshot.volume.name):
            if name in (s['id'], s['name']):
                return s
        raise exception.ManageExistingInvalidReference(
            existing_ref=ref, reason=_('vDisk %s has no such snapshot')
            % snapshot.volume.name)

    def manage_existing_snapshot_get_size(self, snapshot, existing_ref):
        found = self._existing_snapshot(snapshot, existing_ref)
        return math.ceil(found['size'] / units.Gi)

    def manage_existing_snapshot(self, snapshot, existing_ref):
        found = self._existing_snapshot(snapshot, existing_ref)
        return {'provider_id': found['id']}

    def unmanage_snapshot(self, snapshot):
        pass

    def get_manageable_snapshots(self, cinder_snapshots, marker, limit,
                                 offset, sort_keys, sort_dirs):
        known = {}
        for s in cinder_snapshots:
            known[s['provider_id'] or s['name']] = s['id']
        entries = []
        for pool in self._vpools():
            for d in self._client.list('/vdisks', vpool=pool['name']):
                if not d['labels'].get(LABEL_VOLUME):
                    continue
                try:
                    snapshots = self._snapshots(d['id'])
                except client.APIError as e:
                    if e.code != 'not_found':
                        raise
                    continue  # gone since it was listed, or not whole yet
                for s in snapshots:
                    snapshot_id = known.get(s['id']) or known.get(s['name'])
                    entries.append({
                        'reference': {'source-name': s['name']},
                        'size': math.ceil(s['size'] / units.Gi),
                        'safe_to_manage': not snapshot_id,
                        'reason_not_safe':
                            _('already managed') if snapshot_id else None,
                        'cinder_id': snapshot_id,
                        'extra_info': None,
                        'source_reference': {'source-name': d['name']},
                    })
        return volume_utils.paginate_entries_list(
            entries, marker, limit, offset, sort_keys, sort_dirs)

    # Groups. Those whose type does not ask for consistent snapshots are left
    # to Cinder, volume by volume.

    @staticmethod
    def _consistent(group):
        if not volume_utils.is_group_a_cg_snapshot_type(group):
            raise NotImplementedError()

    def create_group(self, context, group):
        self._consistent(group)
        return {'status': 'available'}

    def delete_group(self, context, group, volumes):
        self._consistent(group)
        return self._delete_each(volumes, self.delete_volume)

    @staticmethod
    def _delete_each(members, delete):
        for m in members:
            delete(m)
        return {'status': 'deleted'}, [{'id': m.id, 'status': 'deleted'}
                                       for m in members]

    def update_group(self, context, group, add_volumes=None,
                     remove_volumes=None):
        self._consistent(group)
        return None, None, None

    def create_group_snapshot(self, context, group_snapshot, snapshots):
        self._consistent(group_snapshot)
        made = self._client.create('/snapshotGroups', {
            'vdisks': [s.volume.name for s in snapshots], 'sticky': True,
            'name': 'group-snapshot-' + group_snapshot.id,
            'labels': {'cinder-group-snapshot': group_snapshot.id}})
        return {'status': 'available'}, [
            {'id': s.id, 'status': 'available', 'provider_id': made['id']}
            for s in snapshots]

    def delete_group_snapshot(self, context, group_snapshot, snapshots):
        self._consistent(group_snapshot)
        return self._delete_each(snapshots, self.delete_snapshot)

    def create_group_from_src(self, context, group, volumes,
                              group_snapshot=None, snapshots=None,
                              source_group=None, source_vols=None):
        self._consistent(group)
        if snapshots:
            for v, s in zip(volumes, snapshots):
                self.create_volume_from_snapshot(v, s)
            return None, None
        name = 'group-clone-' + group.id
        sources = [v.name for v in source_vols]
        self._client.create('/snapshotGroups',
                            {'vdisks': sources, 'name': name})
        try:
            for v, source in zip(volumes, sources):
                self._clone(v, source, snapshot=name)
        finally:
            for source in sources:
                self._client.delete(
                    path('vdisks', source, 'snapshots', name))
        return None, None
