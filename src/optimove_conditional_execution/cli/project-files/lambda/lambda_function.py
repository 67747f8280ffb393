"""What AWS Lambda calls: `lambda_function.lambda_handler`, the name that it looks for by default.

The receiver is made once for each instance of the function, so that its calls share the connections to Optimove.
"""

from __future__ import annotations

from optimove_conditional_execution.adapters import aws_lambda

from gate import create_receiver

lambda_handler = aws_lambda.lambda_handler(create_receiver())
