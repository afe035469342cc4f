"""Buckets as tar streams, in the cluster: the other end of `flightdeck cluster backup` and `restore`.

save BUCKET       every object to stdout as one tar; its last member, MANIFEST.json, says size and sha256 of each
load BUCKET       such a tar from stdin into the bucket, beside what is there
prune BUCKET      delete what a JSON list from stdin does not name; may be repeated
count BUCKET...   {bucket: objects} as JSON
sums BUCKET       {key: [bytes, sha256]} of what the bucket holds now, read anew, as JSON
"""

import hashlib
import io
import json
import sys
import tarfile

MANIFEST, PREFIX = "MANIFEST.json", "objects/"


def turn(key):
    """When an object is copied: what names others goes before what it names.

    A Delta table's files never change and are deleted only days after nothing names them, so whatever is named by what
    was copied first is still there later; the checkpoint that `_last_checkpoint` names likewise.
    """
    if key.endswith("_delta_log/_last_checkpoint"):
        return 0
    return 1 if "_delta_log" in key.split("/") else 2


class Summed:
    """A stream that is read once, and the sha256 of what was read."""

    def __init__(self, stream):
        self.stream, self.digest, self.size = stream, hashlib.sha256(), 0

    def read(self, amount=-1):
        """As of any stream."""
        block = self.stream.read(amount if amount and amount > 0 else None)
        self.digest.update(block)
        self.size += len(block)
        return block

    @property
    def sum(self):
        """[bytes, sha256] so far."""
        return [self.size, self.digest.hexdigest()]


def keys(store, bucket):
    """Of every object, in the store's order."""
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (item["Key"] for item in page.get("Contents", ()))


def save(store, bucket, out):
    """Write the bucket as a tar. An object that is deleted before its turn is as if the backup had begun later."""
    sums = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for now in (0, 1, 2):
            for key in keys(store, bucket):  # listed anew: what the last turn's objects name may be newer than a list
                if turn(key) != now:
                    continue
                try:
                    answer = store.get_object(Bucket=bucket, Key=key)
                except store.exceptions.NoSuchKey:
                    continue
                body, member = Summed(answer["Body"]), tarfile.TarInfo(PREFIX + key)
                member.size, member.mtime = answer["ContentLength"], int(answer["LastModified"].timestamp())
                archive.addfile(member, body)
                sums[key] = body.sum
        total = sum(size for size, _ in sums.values())
        text = json.dumps({"bucket": bucket, "objects": len(sums), "bytes": total, "sums": sums}).encode()
        last = tarfile.TarInfo(MANIFEST)
        last.size = len(text)
        archive.addfile(last, io.BytesIO(text))


def load(store, bucket, source):
    """Put what the tar holds; returns how many objects. Others stay, since databases may still name them.

    Raises:
        ValueError: the stream is not whole.
    """
    put, manifest = {}, None
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            if member.name == MANIFEST:
                manifest = json.load(archive.extractfile(member))
                continue
            key, body = member.name.removeprefix(PREFIX), Summed(archive.extractfile(member))
            store.upload_fileobj(body, bucket, key)
            put[key] = body.sum
    if manifest is None or manifest["sums"] != put:
        raise ValueError(f"{bucket}: the stream was cut after {len(put)} objects; restore again")
    return {"put": len(put)}


def prune(store, bucket, keep):
    """Delete every object that is not in `keep`; returns how many. After a failure it goes on with what is left."""
    surplus = [key for key in keys(store, bucket) if key not in keep]
    for key in surplus:
        store.delete_object(Bucket=bucket, Key=key)
    return {"deleted": len(surplus)}


def sums(store, bucket):
    """What each object holds now."""
    found = {}
    for key in keys(store, bucket):
        body = Summed(store.get_object(Bucket=bucket, Key=key)["Body"])
        while body.read(1 << 20):
            pass
        found[key] = body.sum
    return found


def main(what, *buckets):
    """As the command line says; words and exit code 1 when it cannot."""
    import boto3
    import botocore.config
    import botocore.exceptions

    store = boto3.client("s3", config=botocore.config.Config(retries={"max_attempts": 5, "mode": "standard"}))
    try:
        if what == "save":
            save(store, buckets[0], sys.stdout.buffer)
        elif what == "load":
            print(json.dumps(load(store, buckets[0], sys.stdin.buffer)))
        elif what == "prune":
            print(json.dumps(prune(store, buckets[0], set(json.load(sys.stdin)))))  # a list that was cut is no JSON
        elif what == "sums":
            print(json.dumps(sums(store, buckets[0])))
        else:
            print(json.dumps({bucket: sum(1 for _ in keys(store, bucket)) for bucket in buckets}))
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, tarfile.TarError, ValueError) as error:
        sys.exit(f"{what} {' '.join(buckets)}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
