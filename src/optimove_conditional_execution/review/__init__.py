"""Reviews of scheduled campaigns: read the customers, ask a reviewer about them, report who is approved."""

from .campaign_review import AsyncCampaignReview, CampaignReview
from .per_customer import per_customer

__all__ = ["AsyncCampaignReview", "CampaignReview", "per_customer"]
