"""Once per account: the bucket, the two roles and the security group that cluster.yaml names.

    python deploy/aws/prepare.py my-bucket
    python deploy/aws/prepare.py my-bucket --remove

Run it again whenever your address changes; what is there already is kept, rights are renewed.
Needs boto3 and credentials that may administer S3, IAM and EC2. Nothing that it makes costs
anything by itself; the bucket costs what is in it, and --remove leaves it alone.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import boto3
import typer
from botocore.exceptions import BotoCoreError, ClientError

HERE = Path(__file__).parent
CLUSTER = "saeq"
GROUP = "saeq"
# A head does what a worker does, and brings workers.
POLICIES = {"saeq-head": ("worker", "head"), "saeq-worker": ("worker",)}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
WHO_AM_I = "https://checkip.amazonaws.com"


def main(
    bucket: Annotated[str, typer.Argument(help="Name of the bucket; made if it is not there.")],
    prefix: Annotated[str, typer.Option(help="Folder of the store in it.")] = "saeq",
    region: Annotated[str, typer.Option(help="Where machines and bucket are.")] = "us-east-1",
    address: Annotated[
        str, typer.Option(help="Who may ssh, as ADDRESS/BITS; else the address you have now.")
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take it all away again.")] = False,
) -> None:
    """Make what cluster.yaml names, and print the lines to write there."""
    session = boto3.Session(region_name=region)
    if remove:
        remove_all(session)
        typer.echo(f"removed; the bucket {bucket} is left as it is")
        return
    mine = own_network(address)
    make_bucket(session, bucket)
    account = session.client("sts").get_caller_identity()["Account"]
    names = {"BUCKET": bucket, "PREFIX": prefix.strip("/"), "REGION": region}
    for role, policies in POLICIES.items():
        make_role(session, role, policies, {**names, "ACCOUNT": account, "CLUSTER": CLUSTER})
    allow_spot(session)
    group = make_group(session, mine)
    typer.echo(f"ssh into the cluster: from {mine} only")
    typer.echo("\nThese lines belong into cluster.yaml:\n")
    typer.echo(f"  region: &region {region}")
    typer.echo(f"  zones: &zones {','.join(zones_with_subnets(session))}")
    typer.echo(f"  security_group: &security_group [{group}]")
    store = f"s3://{bucket}/{names['PREFIX']}"
    typer.echo(f"  store: &store echo SAEQ_STORE={store} | sudo tee /etc/saeq.env")


def own_network(address: str) -> ipaddress.IPv4Network:
    """The network that may ssh: given, or this machine as the internet sees it."""
    if not address:
        with urllib.request.urlopen(WHO_AM_I, timeout=10) as answer:
            address = answer.read().decode().strip()
    try:
        network = ipaddress.IPv4Network(address)
    except ValueError as error:
        rule = f"--address must be an IPv4 address or network, got {address!r} ({error})"
        raise typer.BadParameter(f"{rule}; give 203.0.113.7/32") from error
    if network.num_addresses > 2**16:
        raise typer.BadParameter(
            f"{network} is {network.num_addresses:,} addresses; open ssh to a /16 at most, "
            "best to your own: --address 203.0.113.7/32"
        )
    return network


def make_bucket(session: boto3.Session, bucket: str) -> None:
    """A private bucket, where uploads of killed machines do not stay; yours are not changed."""
    s3 = session.client("s3")
    region = session.region_name
    try:
        there = s3.head_bucket(Bucket=bucket).get("BucketRegion", region)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            taken = f"bucket {bucket} belongs to somebody else; choose another name"
            raise typer.BadParameter(taken) from error
    else:
        if there != region:
            bill = "traffic between regions is billed and slow"
            raise typer.BadParameter(f"bucket {bucket} is in {there}, not in {region}: {bill}")
        typer.echo(f"bucket {bucket}: there")
        return
    where = {} if region == "us-east-1" else {"LocationConstraint": region}
    s3.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": where} if where else {}))
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
    )
    rule = {
        "ID": "uploads-of-killed-machines",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    typer.echo(f"bucket {bucket}: made, closed to the public")


def make_role(
    session: boto3.Session, role: str, policies: tuple[str, ...], names: dict[str, str]
) -> None:
    """A role with its rights as they are written now, and the instance profile of its name."""
    iam = session.client("iam")
    _unless(
        "EntityAlreadyExists",
        iam.create_role,
        RoleName=role,
        AssumeRolePolicyDocument=json.dumps(TRUST),
    )
    for policy in policies:
        text = (HERE / f"{policy}-policy.json").read_text()
        for name, value in names.items():
            text = text.replace(name, value)
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=text)
    _unless("EntityAlreadyExists", iam.create_instance_profile, InstanceProfileName=role)
    profile = iam.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]
    if not profile["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    typer.echo(f"role and instance profile {role}: {', '.join(policies)}-policy.json")


def allow_spot(session: boto3.Session) -> None:
    """The account's own role for spot requests: without it the first request is refused."""
    iam = session.client("iam")
    _unless(
        ("InvalidInput", "EntityAlreadyExists"),
        iam.create_service_linked_role,
        AWSServiceName="spot.amazonaws.com",
    )


def make_group(session: boto3.Session, mine: ipaddress.IPv4Network) -> str:
    """The group in the default VPC: everything from itself, ssh from one network, nothing else."""
    ec2 = session.client("ec2")
    group = _group(ec2)
    if group is None:
        about = "saeq: ssh from one address, all between its members"
        ec2.create_security_group(GroupName=GROUP, Description=about, VpcId=_vpc(ec2))
        group = _group(ec2)
        assert group is not None
    if group["IpPermissions"]:
        ec2.revoke_security_group_ingress(
            GroupId=group["GroupId"], IpPermissions=group["IpPermissions"]
        )
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": str(mine)}]}
    inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]}
    ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[ssh, inside])
    return str(group["GroupId"])


def zones_with_subnets(session: boto3.Session) -> list[str]:
    """Zones in which the default VPC has a subnet that gives machines an address."""
    ec2 = session.client("ec2")
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [_vpc(ec2)]}])["Subnets"]
    return sorted({s["AvailabilityZone"] for s in subnets if s["MapPublicIpOnLaunch"]})


def remove_all(session: boto3.Session) -> None:
    """The other way round; the bucket stays, and so does the account's role for spot."""
    iam, ec2 = session.client("iam"), session.client("ec2")
    for role, policies in POLICIES.items():
        gone = "NoSuchEntity"
        _unless(
            gone, iam.remove_role_from_instance_profile, InstanceProfileName=role, RoleName=role
        )
        _unless(gone, iam.delete_instance_profile, InstanceProfileName=role)
        for policy in policies:
            _unless(gone, iam.delete_role_policy, RoleName=role, PolicyName=policy)
        _unless(gone, iam.delete_role, RoleName=role)
    group = _group(ec2)
    if group is not None:
        ec2.delete_security_group(GroupId=group["GroupId"])


def _vpc(ec2: Any) -> str:
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise typer.BadParameter(
            "this region has no default VPC; make one with `aws ec2 create-default-vpc`"
        )
    return str(found[0]["VpcId"])


def _group(ec2: Any) -> dict[str, Any] | None:
    wanted = [
        {"Name": "group-name", "Values": [GROUP]},
        {"Name": "vpc-id", "Values": [_vpc(ec2)]},
    ]
    found = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    return dict(found[0]) if found else None


def _unless(codes: str | tuple[str, ...], call: Any, **arguments: Any) -> None:
    """Call AWS; an answer with one of these codes says that it was so already."""
    try:
        call(**arguments)
    except ClientError as error:
        allowed = (codes,) if isinstance(codes, str) else codes
        if error.response["Error"]["Code"] not in allowed:
            raise


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except (BotoCoreError, ClientError, OSError) as error:
        typer.echo(f"AWS refused or did not answer: {error}", err=True)
        sys.exit(1)
