# SPDX-License-Identifier: Apache-2.0
#
# Nodes over availability zones, and HAProxy in front. README.md beside this file says how it is used, and what of it has been tried.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0, < 7.0"
    }
  }
}

data "aws_region" "here" {}

data "aws_vpc" "store" {
  id      = var.vpc_id
  default = var.vpc_id == null ? true : null
}

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.store.id]
  }
  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

locals {
  port       = 5000
  subnet_ids = length(var.subnet_ids) > 0 ? var.subnet_ids : sort(data.aws_subnets.default.ids)
  # Known before there is an instance, for each is told of all: node 0 in the first zone, node 1 in the next, and on.
  node_ips = [
    for node in range(var.nodes) : cidrhost(
      data.aws_subnet.store[local.subnet_ids[node % length(local.subnet_ids)]].cidr_block,
      var.first_host + floor(node / length(local.subnet_ids))
    )
  ]
}

data "aws_subnet" "store" {
  for_each = toset(local.subnet_ids)
  id       = each.value
}

data "aws_ami" "debian" {
  owners      = ["136693071363"] # Debian's
  most_recent = true
  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
}

module "user_data" {
  source         = "./user-data"
  name           = var.name
  region         = data.aws_region.here.name
  bucket         = aws_s3_bucket.files.id
  package        = aws_s3_object.package.key
  package_sha256 = filesha256(var.package)
  setup          = aws_s3_object.setup.key
  setup_sha256   = filesha256(var.setup)
  addresses      = [for ip in local.node_ips : "${ip}:${local.port}"]
  memory_mib     = var.memory_mib
}

resource "aws_instance" "node" {
  count                       = var.nodes
  ami                         = data.aws_ami.debian.id
  instance_type               = var.node_type
  subnet_id                   = local.subnet_ids[count.index % length(local.subnet_ids)]
  private_ip                  = local.node_ips[count.index]
  associate_public_ip_address = var.public_addresses
  vpc_security_group_ids      = [aws_security_group.node.id]
  iam_instance_profile        = aws_iam_instance_profile.role["node"].name
  key_name                    = var.key_name
  user_data                   = module.user_data.nodes[count.index]
  tags                        = { Name = "${var.name}-node${count.index + 1}" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = 20
  }
  # It is for the first boot alone, and lists all nodes: a further one must not replace those that hold pairs. Nor must a newer image.
  lifecycle {
    ignore_changes = [user_data, ami]
  }
  depends_on = [aws_iam_role_policy.files, aws_iam_role_policy.tokens, aws_vpc_security_group_egress_rule.out]
}

resource "aws_instance" "balancer" {
  ami                         = data.aws_ami.debian.id
  instance_type               = var.balancer_type
  subnet_id                   = local.subnet_ids[0]
  associate_public_ip_address = var.public_addresses
  vpc_security_group_ids      = [aws_security_group.balancer.id]
  iam_instance_profile        = aws_iam_instance_profile.role["balancer"].name
  key_name                    = var.key_name
  user_data                   = module.user_data.balancer
  tags                        = { Name = "${var.name}-balancer" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = 20
  }
  lifecycle {
    ignore_changes = [user_data, ami]
  }
  # Node 1's address is to be its own before this one is given any.
  depends_on = [aws_instance.node, aws_iam_role_policy.files, aws_vpc_security_group_egress_rule.out]
}
