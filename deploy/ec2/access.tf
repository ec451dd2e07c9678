# SPDX-License-Identifier: Apache-2.0
#
# What instances may do in the account: read their two files, and, the nodes, keep and read the tokens. None of these is in Terraform's
# state: a node makes them (first-boot.sh).

resource "aws_s3_bucket" "files" {
  bucket_prefix = "${var.name}-"
  force_destroy = true
}

resource "aws_s3_bucket_public_access_block" "files" {
  bucket                  = aws_s3_bucket.files.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_object" "package" {
  bucket      = aws_s3_bucket.files.id
  key         = basename(var.package)
  source      = var.package
  source_hash = filesha256(var.package)
}

resource "aws_s3_object" "setup" {
  bucket      = aws_s3_bucket.files.id
  key         = "setup.tar.gz"
  source      = var.setup
  source_hash = filesha256(var.setup)
}

data "aws_caller_identity" "me" {}

data "aws_partition" "here" {}

data "aws_iam_policy_document" "instances" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "role" {
  for_each           = toset(["node", "balancer"])
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.instances.json
}

resource "aws_iam_instance_profile" "role" {
  for_each = aws_iam_role.role
  name     = each.value.name
  role     = each.value.name
}

data "aws_iam_policy_document" "files" {
  statement {
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.files.arn}/*"]
  }
}

resource "aws_iam_role_policy" "files" {
  for_each = aws_iam_role.role
  name     = "files"
  role     = each.value.id
  policy   = data.aws_iam_policy_document.files.json
}

# (The key is the account's own for SSM, which whoever may use the parameters may use by way of SSM.)
data "aws_iam_policy_document" "tokens" {
  statement {
    actions   = ["ssm:GetParameter", "ssm:PutParameter"]
    resources = ["arn:${data.aws_partition.here.partition}:ssm:${data.aws_region.here.name}:${data.aws_caller_identity.me.account_id}:parameter/${var.name}/tokens/*"]
  }
}

resource "aws_iam_role_policy" "tokens" {
  name   = "tokens"
  role   = aws_iam_role.role["node"].id
  policy = data.aws_iam_policy_document.tokens.json
}
