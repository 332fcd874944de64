package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

func (s *Server) userGroupOf(g model.UserGroup, members []string) UserGroup {
	return UserGroup{
		ID: g.ID, Name: g.Name, Description: g.Description, Role: RoleOrNone(g.Role), Grants: s.grantsOf(g.Grants),
		Members: append([]string{}, members...), Created: g.Created,
	}
}

// oneGroup is a group as it is now.
func (s *Server) oneGroup(g model.UserGroup) UserGroup {
	return s.userGroupOf(g, s.opt.Auth.Members()[g.ID])
}

// roleChange reads a role that may be absent.
func roleChange(role *RoleOrNone) (*auth.Role, error) {
	if role == nil {
		return nil, nil
	}
	r, err := auth.ParseRoleOrNone(string(*role))
	return &r, err
}

// ListGroups lists groups of users by name.
func (s *Server) ListGroups(_ context.Context, r ListGroupsRequestObject) (ListGroupsResponseObject, error) {
	members := s.opt.Auth.Members()
	var rows []UserGroup
	for _, g := range s.opt.Auth.Groups() {
		if matches(r.Params.Q, g.Name, nil) {
			rows = append(rows, s.userGroupOf(g, members[g.ID]))
		}
	}
	items, next, err := page(rows, func(g UserGroup) model.Keys { return model.Keys{Text: g.Name, ID: g.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListGroups200JSONResponse{items, next}, err
}

// CreateGroup makes a group of users.
func (s *Server) CreateGroup(ctx context.Context, r CreateGroupRequestObject) (CreateGroupResponseObject, error) {
	object := "group " + r.Body.Name
	role, err := roleChange(r.Body.Role)
	if err != nil {
		return nil, about(object, "", err)
	}
	g, err := s.opt.Auth.CreateGroup(ctx, r.Body.Name, auth.GroupChange{Description: r.Body.Description, Role: role, Grants: grantsIn(r.Body.Grants)})
	if err != nil {
		return nil, about(object, "name", err)
	}
	return CreateGroup201JSONResponse(s.oneGroup(g)), nil
}

// GetGroup shows a group of users.
func (s *Server) GetGroup(_ context.Context, r GetGroupRequestObject) (GetGroupResponseObject, error) {
	g, err := s.opt.Auth.Group(r.Group)
	if err != nil {
		return nil, about("group "+r.Group, "", err)
	}
	return GetGroup200JSONResponse(s.oneGroup(g)), nil
}

// UpdateGroup changes a group of users.
func (s *Server) UpdateGroup(ctx context.Context, r UpdateGroupRequestObject) (UpdateGroupResponseObject, error) {
	object := "group " + r.Group
	role, err := roleChange(r.Body.Role)
	if err != nil {
		return nil, about(object, "", err)
	}
	g, err := s.opt.Auth.UpdateGroup(ctx, r.Group, auth.GroupChange{Name: r.Body.Name, Description: r.Body.Description, Role: role, Grants: grantsIn(r.Body.Grants)})
	if err != nil {
		return nil, about(object, "name", err)
	}
	return UpdateGroup200JSONResponse(s.oneGroup(g)), nil
}

// DeleteGroup deletes a group of users.
func (s *Server) DeleteGroup(ctx context.Context, r DeleteGroupRequestObject) (DeleteGroupResponseObject, error) {
	if err := s.opt.Auth.DeleteGroup(ctx, r.Group); err != nil {
		return nil, about("group "+r.Group, "", err)
	}
	return DeleteGroup204Response{}, nil
}

// AddGroupMember makes a user a member of a group.
func (s *Server) AddGroupMember(ctx context.Context, r AddGroupMemberRequestObject) (AddGroupMemberResponseObject, error) {
	g, err := s.opt.Auth.AddMember(ctx, r.Group, r.User)
	if err != nil {
		return nil, about("group "+r.Group, "", err)
	}
	return AddGroupMember200JSONResponse(s.oneGroup(g)), nil
}

// RemoveGroupMember takes a user out of a group.
func (s *Server) RemoveGroupMember(ctx context.Context, r RemoveGroupMemberRequestObject) (RemoveGroupMemberResponseObject, error) {
	if err := s.opt.Auth.RemoveMember(ctx, r.Group, r.User); err != nil {
		return nil, about("group "+r.Group, "", err)
	}
	return RemoveGroupMember204Response{}, nil
}
