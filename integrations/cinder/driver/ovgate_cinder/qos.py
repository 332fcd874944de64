# Licensed under the Apache License, Version 2.0; see LICENSE.
"""QoS specs of Cinder as limits of a vDisk.

A vDisk limits reads and writes together. ``total_iops_sec`` and
``total_bytes_sec`` are that; ``read_*`` and ``write_*`` are added up and must
be given together, since a limit of one direction alone has no counterpart.
Each of them has a variant ``*_per_gb``, multiplied by the size in GiB, with
``*_per_gb_min`` as its floor.
"""

from cinder import exception
from cinder.i18n import _

IOPS_MIN = 10           # the least that a vDisk can be limited to
BYTES_MIN = 1 << 20     # per second
KEYS = frozenset(
    '%s_%s_sec%s' % (direction, unit, form)
    for direction in ('total', 'read', 'write')
    for unit in ('iops', 'bytes')
    for form in ('', '_per_gb', '_per_gb_min')) | {'burst_ms'}


def _number(specs, key):
    if key not in specs:
        return None
    try:
        value = int(specs[key])
    except ValueError:
        value = -1
    if value < 0:
        raise exception.InvalidInput(reason=_(
            'QoS spec %(key)s=%(value)s is not a whole number of 0 or more')
            % {'key': key, 'value': specs[key]})
    return value


def _limit(specs, name, size_gb):
    value = _number(specs, name)
    per_gb = _number(specs, name + '_per_gb')
    if per_gb is not None:
        scaled = max(per_gb * size_gb,
                     _number(specs, name + '_per_gb_min') or 0)
        value = scaled if value is None else min(value, scaled)
    return value


def _rate(specs, unit, size_gb):
    total = _limit(specs, 'total_%s_sec' % unit, size_gb)
    if total is not None:
        return total
    read = _limit(specs, 'read_%s_sec' % unit, size_gb)
    write = _limit(specs, 'write_%s_sec' % unit, size_gb)
    if read is None and write is None:
        return 0
    if not read or not write:
        raise exception.InvalidInput(reason=_(
            'QoS specs limit %(unit)s of reads or of writes alone, and a '
            'vDisk limits both together: give total_%(unit)s_sec, or give the '
            'specs the consumer front-end') % {'unit': unit})
    return read + write


def limits(specs, size_gb):
    """What PUT /vdisks/{vdisk}/qos takes; zeros are no limits."""
    iops = _rate(specs, 'iops', size_gb)
    rate = _rate(specs, 'bytes', size_gb)
    return {'iops': max(iops, IOPS_MIN) if iops else 0,
            'bytesPerSecond': max(rate, BYTES_MIN) if rate else 0,
            'burstMs': min(_number(specs, 'burst_ms') or 0, 60000)}
