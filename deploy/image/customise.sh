#!/bin/sh
# Turns a plain Debian tree ($1) into the read-only root of a robot. Run by `premotor image build` as a hook of mmdebstrap, so the same lines work for
# root and in a user namespace. Everything it needs comes through the environment:
#   PREMOTOR_FILES   this folder                        PREMOTOR_ARCH     amd64 or arm64
#   PREMOTOR_DEB     premotor's package, or empty       PREMOTOR_FLEET_CA the fleet's certificate, or empty
#   PREMOTOR_GRUB_TAR where the boot loader's modules are put
#   PREMOTOR_DEBUG   1: a console without a password, for development only
set -eu
root=$1

cp -r --no-preserve=ownership "$PREMOTOR_FILES/rootfs/." "$root/"
chmod -R u=rwX,go=rX "$root/usr/lib/premotor/image"
sed -i "s/@ARCH@/$PREMOTOR_ARCH/" "$root/etc/rauc/system.conf"
# The Intel chipset's watchdog exists on no other architecture.
if [ "$PREMOTOR_ARCH" != amd64 ]; then sed -i '/^iTCO_wdt$/d' "$root/etc/modules-load.d/premotor.conf" "$root/etc/initramfs-tools/modules"; fi

if [ -n "$PREMOTOR_DEB" ]; then
  cp "$PREMOTOR_DEB" "$root/tmp/premotor.deb"
  chroot "$root" dpkg --install /tmp/premotor.deb
  rm "$root/tmp/premotor.deb"
  # What telemetry tells as the system's version, and what bundles of it are called.
  printf 'IMAGE_ID=premotor\nIMAGE_VERSION="%s"\n' "$(chroot "$root" dpkg-query -W -f '${Version}' premotor)" >>"$root/usr/lib/os-release"
fi

if [ -n "$PREMOTOR_FLEET_CA" ]; then install -m 0644 "$PREMOTOR_FLEET_CA" "$root/etc/rauc/fleet-ca.pem"; fi

# What lasts is mounted here; the root itself never changes.
mkdir -p "$root/data" "$root/boot/efi" "$root/var/lib/premotor" "$root/var/log/journal"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
echo premotor >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
ln -sf /proc/mounts "$root/etc/mtab"

# No password opens anything, and no terminal asks for one.
chroot "$root" usermod --lock --shell /bin/bash root
chroot "$root" passwd --quiet --lock root
rm -f "$root"/etc/ssh/ssh_host_*
# The day of the last change would be that on which the plain tree was made, which may be older than this build.
sed -i "s/^\([^:]*:[^:]*\):[0-9]*:/\1:$((SOURCE_DATE_EPOCH / 86400)):/" "$root/etc/shadow"
for unit in getty.target getty@.service serial-getty@.service console-getty.service autovt@.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# The root is a squashfs and complete; what Debian would do to a changing one is off.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer rauc-mark-good.service \
  systemd-networkd-wait-online.service systemd-firstboot.service systemd-remount-fs.service systemd-repart.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# Which units run is a list, and it is complete: what Debian's packages enabled by themselves is off.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires
chroot "$root" systemctl preset-all --preset-mode=full >/dev/null 2>&1
if [ "$PREMOTOR_DEBUG" = 1 ]; then
  install -m 0644 "$PREMOTOR_FILES/debug-console.service" "$root/etc/systemd/system/premotor-debug-console.service"
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -sf ../premotor-debug-console.service "$root/etc/systemd/system/multi-user.target.wants/premotor-debug-console.service"
  rm -f "$root/etc/systemd/system/multi-user.target.wants/premotor-console.service"
fi

# The first file system, at last, with the hooks in place.
release=$(ls "$root/lib/modules" | sort -V | tail -n 1)
# Nobody looks at or listens to a headless robot, and it is no storage cluster.
for part in sound drivers/gpu/drm/amd drivers/gpu/drm/nouveau drivers/gpu/drm/radeon drivers/gpu/drm/i915 drivers/infiniband drivers/isdn fs/ocfs2 fs/gfs2; do
  rm -rf "$root/lib/modules/$release/kernel/$part"
done
chroot "$root" depmod "$release"
printf 'COMPRESS=zstd\nCOMPRESSLEVEL=9\nMODULES=list\n' >"$root/etc/initramfs-tools/conf.d/premotor"
chroot "$root" mkinitramfs -o "/boot/initrd.img-$release" "$release"
ln -sf "boot/vmlinuz-$release" "$root/vmlinuz"
ln -sf "boot/initrd.img-$release" "$root/initrd.img"
rm -f "$root"/vmlinuz.old "$root"/initrd.img.old

# The boot loader's modules are for the ESP, which the build makes: they leave the root through this file.
tar -C "$root/usr/lib/grub" -cf "$PREMOTOR_GRUB_TAR" .
chroot "$root" dpkg --purge "grub-efi-$PREMOTOR_ARCH-bin" >/dev/null 2>&1 || true

# What differs from one build to the next, and what nothing reads: indexes, caches, logs, seeds.
: >"$root/etc/machine-id"
rm -rf "$root"/var/lib/dbus/machine-id "$root"/var/lib/systemd/random-seed "$root"/var/lib/systemd/catalog/database \
  "$root"/var/cache/apt "$root"/var/cache/debconf "$root"/var/cache/ldconfig "$root"/var/lib/apt/lists "$root"/var/lib/apt/extended_states \
  "$root"/var/log/* "$root"/var/lib/dpkg/*-old "$root"/var/backups/* "$root"/tmp/* "$root"/var/tmp/* "$root"/etc/*- "$root"/run/*
# Nothing of /etc and /var is out of date in a complete root, and no clock starts before it was made (all times are set to the same moment later).
touch "$root/etc/.updated" "$root/var/.updated" "$root/usr/lib/clock-epoch"
mkdir -p "$root/var/log/journal" "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
