"""Make the buckets that are missing; the store may still be starting."""

import sys
import time

import boto3
import botocore.config
import botocore.exceptions

WAIT_S = 120

quick = botocore.config.Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 1})
deadline = time.monotonic() + WAIT_S
while True:
    try:
        store = boto3.client("s3", config=quick)
        there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
        for name in sys.argv[1:]:
            if name not in there:
                store.create_bucket(Bucket=name)
            print(f"{name}: {'is there' if name in there else 'made'}")
        break
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        if time.monotonic() > deadline:
            sys.exit(f"the object store does not answer after {WAIT_S} s: {error}")
        time.sleep(1)
